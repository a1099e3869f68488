/** A point of a curve, both coordinates greater than 0. */
export type Point = readonly [x: number, y: number];

/** Of ln y over ln x, by least squares: the exponent of a power law. Needs two points at the least. */
export function exponentOf(points: readonly Point[]): number {
  const [xs, ys] = [points.map(([x]) => Math.log(x)), points.map(([, y]) => Math.log(y))];
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [mx, my] = [mean(xs), mean(ys)];
  return mean(xs.map((x, i) => (x - mx) * ((ys[i] as number) - my))) / mean(xs.map((x) => (x - mx) ** 2));
}

/** The half with the larger x, where fixed costs no longer count; two at the least. */
export function upperHalf<P>(points: readonly P[]): readonly P[] {
  return points.slice(-Math.max(2, Math.ceil(points.length / 2)));
}
