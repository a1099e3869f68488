import { kernels, nystrom, nystromSync, type RandomFeatures, randomFeatures, randomFeaturesSync, type Tensor } from "dpo-kernels";
import { SAMPLE_SHAPES, type SampleShape } from "../shapes.js";
import { BOTH_STORAGES, call, casesOf, F32_ONLY, inTurn, type Placed, type Select, type SurveyCase, type Work } from "./case.js";
import { numbers, touched } from "./inputs.js";
import { rowsLabel } from "./kernels.js";

/** At most, of both kinds: half as many frequencies, each a sine and a cosine. */
const MOST_FEATURES = 512;
const KERNEL = kernels.rbf({ sigma: 0.8 });

const widthFor = ({ rows }: SampleShape): number => Math.min(MOST_FEATURES, 2 * Math.floor(rows / 2));

const randomArgs = (shape: SampleShape) => ({ kernel: KERNEL, frequencies: widthFor(shape) / 2, depth: shape.depth });
const nystromArgs = (shape: SampleShape) => ({
  x: numbers([shape.rows, shape.depth], "f32"),
  kernel: KERNEL,
  landmarks: widthFor(shape) / 4,
});

/** What both kinds of features have in common. */
type Features = Pick<RandomFeatures, "transform" | "transformSync" | "width"> & {
  transformVjp(args: { x: Tensor; upstream: Tensor }, options: { out: { x: Tensor } }): Promise<unknown>;
  transformVjpSync(args: { x: Tensor; upstream: Tensor }, options: { out: { x: Tensor } }): unknown;
};

function transforms(name: string, needs: { value: string[]; gradient: string[] }, make: (shape: SampleShape) => Features): Work<SampleShape>[] {
  const value = (features: Features, x: Tensor, placed: Placed) => {
    const out = placed({ features: touched([x.shape[0] as number, features.width], "f32") });
    return { sync: () => features.transformSync(x, { out }), async: () => features.transform(x, { out }) };
  };
  return [
    {
      calls: [`${name}.transform`],
      what: "value",
      needs: needs.value,
      prepare: (shape, dtype, placed) => value(make(shape), placed(numbers([shape.rows, shape.depth], dtype)), placed),
    },
    {
      calls: [`${name}.transform`, `${name}.transformVjp`],
      what: "value + gradients",
      needs: [...needs.value, ...needs.gradient],
      prepare: (shape, dtype, placed) => {
        const { rows, depth } = shape;
        const features = make(shape);
        const { x, upstream, out } = placed({
          x: numbers([rows, depth], dtype),
          upstream: numbers([rows, features.width], "f32", 1, 3),
          out: { x: touched([rows, depth], dtype) },
        });
        const pullBack = {
          sync: () => features.transformVjpSync({ x, upstream }, { out }),
          async: () => features.transformVjp({ x, upstream }, { out }),
        };
        return inTurn(value(features, x, placed), pullBack);
      },
    },
  ];
}

const RANDOM = transforms("RandomFeatures", { value: ["randomFrequencies", "randomFeatures"], gradient: ["randomFeaturesVjp"] }, (shape) =>
  randomFeaturesSync(randomArgs(shape)),
);

const OF_LANDMARKS = ["gram", "landmarks", "eigh"];
const NYSTROM = transforms("NystromFeatures", { value: [...OF_LANDMARKS, "gramReduce"], gradient: ["gramReduceVjp"] }, (shape) =>
  nystromSync(nystromArgs(shape)),
);

const MADE: readonly Work<SampleShape>[] = [
  {
    calls: ["randomFeatures"],
    what: "frequencies",
    needs: ["randomFrequencies"],
    prepare: (shape) => call({ sync: randomFeaturesSync, async: randomFeatures }, randomArgs(shape), {}),
  },
  {
    calls: ["nystrom"],
    what: "landmarks and projection",
    needs: OF_LANDMARKS,
    prepare: (shape) => call({ sync: nystromSync, async: nystrom }, nystromArgs(shape), {}),
  },
];

export function featureCases(select: Select): SurveyCase[] {
  const shapes = select(SAMPLE_SHAPES);
  return [
    ...casesOf({ shapes, dtypes: F32_ONLY, label: rowsLabel }, [...MADE, ...NYSTROM]),
    ...casesOf({ shapes, dtypes: BOTH_STORAGES, label: rowsLabel }, RANDOM),
  ];
}
