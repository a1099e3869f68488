/** Reference for every kernel and for mixtures: SPEC 3's formulas as they stand there, in float64, differentiated on a tape. */

import type { FormulaKernel, Kernel, MixtureKernel } from "dpo-kernels";
import { remembered } from "../remember.js";
import { at, type Numbers, row } from "./numbers.js";
import { Tape, type Term } from "./tape.js";

export interface KernelInputs {
  /** [N, D] */
  readonly u: Numbers;
  readonly v: Numbers;
  /** D */
  readonly width: number;
}

export interface Gradient {
  readonly values: Float64Array;
  /** Σ|terms| of each, for the bounds of SPEC 9. */
  readonly termSums: Float64Array;
}

export interface KernelTruth {
  readonly logK: Float64Array;
  /** [N, members]: share of each kernel, where the kernel is a mixture. */
  readonly responsibilities: Float64Array;
  /** Of each group by path, the root's is "". */
  readonly entropies: Readonly<Record<string, number>>;
  /** Each node's share of its group, by path. */
  readonly weights: Readonly<Record<string, number>>;
}

export interface KernelGradients {
  readonly u: Gradient;
  readonly v: Gradient;
  readonly params: Readonly<Record<string, Gradient>>;
}

/** Parameters by name, on a tape. */
type Parameters = Readonly<Record<string, readonly Term[]>>;

export const logKernelTruth = remembered(logKernelTruthOf);

function logKernelTruthOf(kernel: Kernel, inputs: KernelInputs): KernelTruth {
  const rows = rowsOf(inputs);
  const evaluations = rows.map((i) => evaluate(kernel, inputs, i));
  const [first] = evaluations;
  if (first === undefined) throw new RangeError("no rows");
  return {
    logK: Float64Array.from(evaluations, ({ tape, logK }) => tape.value(logK)),
    responsibilities: Float64Array.from(
      evaluations.flatMap(({ tape, logK, members }) => members.map((m) => Math.exp(tape.value(m) - tape.value(logK)))),
    ),
    entropies: mapValues(first.groups.entropies, (term) => first.tape.value(term)),
    weights: mapValues(first.groups.weights, (term) => first.tape.value(term)),
  };
}

/** Gradients of Σ upstream·logK + entropyUpstream·Σ_groups H. */
export const logKernelGradients = remembered(logKernelGradientsOf);

function logKernelGradientsOf(kernel: Kernel, inputs: KernelInputs, upstream: Numbers, entropyUpstream = 0): KernelGradients {
  const { width } = inputs;
  const rows = rowsOf(inputs);
  const zeros = (size: number): Gradient => ({ values: new Float64Array(size), termSums: new Float64Array(size) });
  const grads = { u: zeros(rows.length * width), v: zeros(rows.length * width), params: mapValues(kernel.parameters, ({ size }) => zeros(size)) };
  for (const i of rows) {
    const { tape, logK, u, v, parameters, groups } = evaluate(kernel, inputs, i);
    const entropy = tape.sum(Object.values(groups.entropies));
    const regulariser = tape.affine(entropy, i === 0 ? entropyUpstream : 0);
    const { values, magnitudes } = tape.derivatives(tape.add(tape.affine(logK, at(upstream, i)), regulariser));
    const add = (to: Gradient, offset: number, terms: readonly Term[]): void =>
      terms.forEach((term, k) => {
        to.values[offset + k] = (to.values[offset + k] ?? 0) + at(values, term);
        to.termSums[offset + k] = (to.termSums[offset + k] ?? 0) + at(magnitudes, term);
      });
    add(grads.u, i * width, u);
    add(grads.v, i * width, v);
    for (const [name, terms] of Object.entries(parameters)) add(grads.params[name] as Gradient, 0, terms);
  }
  return grads;
}

interface Groups {
  readonly entropies: Record<string, Term>;
  readonly weights: Record<string, Term>;
}

/** log k of one pair; `members` are the ln(w·k) of a mixture's kernels, in order. */
function evaluate(kernel: Kernel, { u, v, width }: KernelInputs, index: number) {
  const tape = new Tape();
  const [x, y] = [tape.variables(row(u, index, width)), tape.variables(row(v, index, width))];
  const [a, b] = kernel.normalize ? [normalized(tape, x), normalized(tape, y)] : [x, y];
  const parameters = mapValues(kernel.parameters, ({ data }) => tape.variables(data));
  const groups: Groups = { entropies: {}, weights: {} };
  const members: Term[] = [];
  if (kernel.name === "mixture") addMembers({ tape, a, b, parameters, groups, members }, kernel, "", tape.variable(0));
  const logK = kernel.name === "mixture" ? tape.logSumExp(members) : formula(tape, kernel, parameters, a, b, kernel.unitDiagonal ?? false);
  return { tape, logK, u: x, v: y, parameters, groups, members };
}

interface MixtureWalk {
  readonly tape: Tape;
  readonly a: readonly Term[];
  readonly b: readonly Term[];
  readonly parameters: Parameters;
  readonly groups: Groups;
  readonly members: Term[];
}

/** Adds ln(w·k) of every kernel under this group, whose own ln w is given. */
function addMembers(walk: MixtureWalk, group: MixtureKernel, path: string, logWeight: Term): void {
  const { tape, parameters, groups } = walk;
  const within = (name: string): string => (path === "" ? name : `${path}/${name}`);
  const logits = parameters[within("logits")] ?? [];
  const total = tape.logSumExp(logits);
  const logShares = logits.map((logit) => tape.subtract(logit, total));
  groups.entropies[path] = tape.affine(tape.sum(logShares.map((logShare) => tape.multiply(tape.exp(logShare), logShare))), -1);
  Object.entries(group.members).forEach(([name, member], m) => {
    const logShare = logShares[m] as Term;
    const own = tape.add(logWeight, logShare);
    groups.weights[within(name)] = tape.exp(logShare);
    if (member.name === "mixture") {
      addMembers(walk, member, within(name), own);
      return;
    }
    const prefix = `${within(name)}/`;
    const its = Object.fromEntries(
      Object.entries(parameters).flatMap(([key, terms]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), terms] as const] : [])),
    );
    walk.members.push(tape.add(own, formula(tape, member, its, walk.a, walk.b, member.unitDiagonal ?? true)));
  });
}

/** log k, with a unit diagonal log k(u,v) − ½·log k(u,u) − ½·log k(v,v). */
function formula(tape: Tape, kernel: FormulaKernel, parameters: Parameters, a: readonly Term[], b: readonly Term[], unitDiagonal: boolean): Term {
  const logK = logKernel(tape, kernel, parameters, a, b);
  if (!unitDiagonal || !HAS_DIAGONAL.has(kernel.name)) return logK;
  const own = tape.add(logKernel(tape, kernel, parameters, a, a), logKernel(tape, kernel, parameters, b, b));
  return tape.subtract(logK, tape.affine(own, 0.5));
}

/** Kernels whose k(u, u) is not 1. */
const HAS_DIAGONAL: ReadonlySet<string> = new Set(["polynomial", "rbf_mixture", "spectral"]);

function logKernel(tape: Tape, kernel: FormulaKernel, parameters: Parameters, a: readonly Term[], b: readonly Term[]): Term {
  const scalar = (name: string): Term => parameters[name]?.[0] ?? tape.variable(Number.NaN);
  const squares = (name: string): Term => tape.multiply(scalar(name), scalar(name));
  const difference = a.map((x, i) => tape.subtract(x, b[i] as Term));
  const r2 = (): Term => tape.dot(difference, difference);
  switch (kernel.name) {
    case "rbf":
      return tape.divide(tape.affine(r2(), -0.5), squares("sigma"));
    case "laplacian":
      return tape.affine(tape.divide(tape.sum(difference.map((d) => tape.abs(d))), scalar("sigma")), -1);
    case "matern":
      return matern(tape, kernel.nu, r2(), scalar("sigma"));
    case "rational_quadratic": {
      const share = tape.divide(tape.affine(r2(), 0.5), tape.multiply(scalar("alpha"), squares("sigma")));
      return tape.affine(tape.multiply(scalar("alpha"), tape.log1p(share)), -1);
    }
    case "rbf_mixture": {
      const distance = r2();
      const { lambdas = [], rates = [] } = parameters;
      return tape.logSumExp(lambdas.map((lambda, k) => tape.subtract(tape.log(lambda), tape.multiply(rates[k] as Term, distance))));
    }
    case "wavelet": {
      const t = tape.divide(tape.affine(r2(), 0.5), squares("sigma"));
      return tape.subtract(logAbove(tape, tape.cos(t), tape.variable(kernel.floor)), t);
    }
    case "polynomial": {
      const base = (x: readonly Term[], y: readonly Term[]): Term => tape.add(tape.dot(x, y), scalar("coef0"));
      return tape.multiply(scalar("degree"), logInner(tape, base(a, b), base(a, a), base(b, b), kernel.floor));
    }
    case "mahalanobis": {
      const { factor = [] } = parameters;
      const isDiagonal = kernel.parameters.factor?.shape.length === 1;
      const mapped = isDiagonal ? difference.map((d, i) => tape.multiply(d, factor[i] as Term)) : timesFactor(tape, factor, difference);
      return tape.affine(tape.dot(mapped, mapped), -0.5);
    }
    case "spectral": {
      const [f, g] = [spectralFeatures(tape, kernel, a), spectralFeatures(tape, kernel, b)];
      const { lambdas = [] } = parameters;
      const product = (x: readonly Term[], y: readonly Term[]): Term =>
        tape.sum(lambdas.map((l, k) => tape.multiply(l, tape.multiply(x[k] as Term, y[k] as Term))));
      const log = logInner(tape, product(f.features, g.features), product(f.features, f.features), product(g.features, g.features), kernel.floor);
      return tape.affine(log, 1, f.logScale + g.logScale);
    }
    case "random_fourier": {
      const [f, g] = [fourierFeatures(tape, kernel, a), fourierFeatures(tape, kernel, b)];
      return logInner(tape, tape.dot(f, g), tape.dot(f, f), tape.dot(g, g), kernel.floor);
    }
  }
}

function matern(tape: Tape, nu: number, r2: Term, sigma: Term): Term {
  if (nu === Infinity) return tape.divide(tape.affine(r2, -0.5), tape.multiply(sigma, sigma));
  const s = tape.divide(tape.affine(tape.sqrt(r2), Math.sqrt(2 * nu)), sigma);
  if (nu === 0.5) return tape.affine(s, -1);
  const polynomial = nu === 1.5 ? s : tape.add(s, tape.affine(tape.multiply(s, s), 1 / 3));
  return tape.subtract(tape.log1p(polynomial), s);
}

/** Aᵀ·x, A [D, R]. */
function timesFactor(tape: Tape, factor: readonly Term[], x: readonly Term[]): Term[] {
  const columns = factor.length / x.length;
  return Array.from({ length: columns }, (_, k) =>
    tape.dot(
      x,
      x.map((_, i) => factor[i * columns + k] as Term),
    ),
  );
}

/** φ(u)·e^(−logScale), which keeps base values that underflow. */
function spectralFeatures(tape: Tape, { landmarks, projection, base }: FormulaKernel, x: readonly Term[]): { features: Term[]; logScale: number } {
  if (!landmarks || !projection || !base) throw new TypeError("spectral: not fitted");
  const parameters = mapValues(base.parameters, ({ data }) => tape.variables(data));
  const count = landmarks.shape[0] ?? 0;
  const logs = Array.from({ length: count }, (_, l) => {
    return formula(tape, base, parameters, x, tape.variables(row(landmarks.data, l, x.length)), base.unitDiagonal ?? false);
  });
  const logScale = Math.max(...logs.map((log) => tape.value(log)));
  const values = logs.map((log) => tape.exp(tape.affine(log, 1, -logScale)));
  const rank = projection.size / count;
  const features = Array.from({ length: rank }, (_, k) => tape.sum(values.map((value, l) => tape.affine(value, at(projection.data, k * count + l)))));
  return { features, logScale };
}

function fourierFeatures(tape: Tape, { projection }: FormulaKernel, x: readonly Term[]): Term[] {
  if (!projection) throw new TypeError("random_fourier: no frequencies");
  const count = projection.size / x.length;
  return Array.from({ length: count }, (_, k) => tape.sum(x.map((value, i) => tape.affine(value, at(projection.data, k * x.length + i))))).flatMap(
    (angle) => [tape.affine(tape.cos(angle), 1 / Math.sqrt(count)), tape.affine(tape.sin(angle), 1 / Math.sqrt(count))],
  );
}

/** ln of an inner product; below `floor` of its value at u = v, which for two rows is the geometric mean of theirs, by the tangent. */
function logInner(tape: Tape, uv: Term, uu: Term, vv: Term, floor: number): Term {
  const diagonal = tape.affine(tape.add(tape.log(uu), tape.log(vv)), 0.5);
  if (tape.value(uv) > floor * Math.exp(tape.value(diagonal))) return tape.log(uv);
  const share = tape.divide(uv, tape.exp(diagonal));
  return tape.add(logAbove(tape, share, tape.variable(floor)), diagonal);
}

/** ln a above the floor, below it ln floor + (a − floor)/floor. */
function logAbove(tape: Tape, a: Term, floor: Term): Term {
  if (tape.value(a) > tape.value(floor)) return tape.log(a);
  return tape.add(tape.log(floor), tape.divide(tape.subtract(a, floor), floor));
}

function normalized(tape: Tape, x: readonly Term[]): Term[] {
  const length = tape.sqrt(tape.dot(x, x));
  return x.map((value) => tape.divide(value, length));
}

function rowsOf({ u, v, width }: KernelInputs): number[] {
  const rows = u.length / width;
  if (!Number.isInteger(rows) || v.length !== u.length) throw new RangeError(`${u.length} and ${v.length} values are no rows of ${width}`);
  return Array.from({ length: rows }, (_, i) => i);
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, map: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]));
}
