import {
  fitKernel,
  fitKernelSync,
  gram,
  gramReduce,
  gramReduceSync,
  gramReduceVjp,
  gramReduceVjpSync,
  gramSync,
  gramVjp,
  gramVjpSync,
  type Kernel,
  kernels,
  mmd,
  mmdSync,
  pairKernel,
  pairKernelSync,
} from "dpo-kernels";
import { EMBEDDING_SHAPES, type EmbeddingShape, SAMPLE_SHAPES, type SampleShape } from "../shapes.js";
import { BOTH_STORAGES, call, casesOf, inTurn, type Placed, type Select, type Storage, type SurveyCase, type Work } from "./case.js";
import { numbers, ones, touched } from "./inputs.js";

export const rowsLabel = ({ rows, depth }: SampleShape): string => `[${rows}, ${depth}]`;

/** What kernels are fitted to: as many rows as fitKernel looks at, or fewer. */
const MOST_FITTED = 256;

const UNFITTED = { rbf: () => kernels.rbf({ sigma: "median" }), hmk: () => kernels.hmk() };
const OF_FIT = ["gram", "landmarks", "eigh"];

export function fittedKernel(name: keyof typeof UNFITTED, { rows, depth }: SampleShape): Kernel {
  return fitKernelSync({ kernel: UNFITTED[name](), embeddings: numbers([Math.min(MOST_FITTED, rows), depth], "f32", 1, 9) });
}

function pairInputs(name: keyof typeof UNFITTED, shape: EmbeddingShape, dtype: Storage, placed: Placed) {
  const { rows, depth } = shape;
  return { ...placed({ u: numbers([rows, depth], dtype), v: numbers([rows, depth], dtype, 1, 2) }), kernel: fittedKernel(name, shape) };
}

const PAIR_FACES = { sync: pairKernelSync, async: pairKernel };

function pairValue(name: keyof typeof UNFITTED): Work<EmbeddingShape> {
  return {
    calls: ["pairKernel"],
    what: `${name}, value`,
    needs: [...OF_FIT, "pairKernel"],
    prepare: (shape, dtype, placed) => call(PAIR_FACES, pairInputs(name, shape, dtype, placed), { out: { logK: touched([shape.rows], "f32") } }),
  };
}

export function pairValueAndGradients(name: keyof typeof UNFITTED): Work<EmbeddingShape> {
  return {
    calls: ["pairKernel"],
    what: `${name}, value + gradients`,
    needs: [...OF_FIT, "pairKernel", "pairKernelVjp"],
    prepare: (shape, dtype, placed) => {
      const { rows, depth } = shape;
      const out = { logK: touched([rows], "f32"), ...placed({ u: touched([rows, depth], dtype), v: touched([rows, depth], dtype) }) };
      return call(PAIR_FACES, { ...pairInputs(name, shape, dtype, placed), upstream: ones(rows) }, { out });
    },
  };
}

const RBF = kernels.rbf({ sigma: 1.4 });

function samples({ rows, depth }: SampleShape, dtype: Storage, placed: Placed) {
  return {
    args: { ...placed({ x: numbers([rows, depth], dtype), y: numbers([rows, depth], dtype, 1, 2) }), kernel: RBF },
    grads: () => placed({ x: touched([rows, depth], dtype), y: touched([rows, depth], dtype) }),
  };
}

export const GRAM: Work<SampleShape> = {
  calls: ["gram"],
  what: "rbf, value",
  prepare: (shape, dtype, placed) => {
    const out = placed({ gram: touched([shape.rows, shape.rows], "f32") });
    return call({ sync: gramSync, async: gram }, samples(shape, dtype, placed).args, { out });
  },
};

const OF_SAMPLES: readonly Work<SampleShape>[] = [
  GRAM,
  {
    calls: ["gram", "gramVjp"],
    what: "rbf, value + gradients",
    prepare: (shape, dtype, placed) => {
      const { args, grads } = samples(shape, dtype, placed);
      const { matrix, upstream } = placed({
        matrix: touched([shape.rows, shape.rows], "f32"),
        upstream: numbers([shape.rows, shape.rows], "f32", 1, 3),
      });
      return inTurn(
        call({ sync: gramSync, async: gram }, args, { out: { gram: matrix } }),
        call({ sync: gramVjpSync, async: gramVjp }, { ...args, upstream, gram: matrix }, { out: grads() }),
      );
    },
  },
  {
    calls: ["gramReduce"],
    what: "rbf, value",
    prepare: (shape, dtype, placed) => {
      const { args } = samples(shape, dtype, placed);
      const { sums, vectors } = placed({ sums: touched([shape.rows], "f32"), vectors: numbers([shape.rows], "f32", 1, 4) });
      return call({ sync: gramReduceSync, async: gramReduce }, { ...args, vectors }, { out: { sums } });
    },
  },
  {
    calls: ["gramReduce", "gramReduceVjp"],
    what: "rbf, value + gradients",
    prepare: (shape, dtype, placed) => {
      const { args, grads } = samples(shape, dtype, placed);
      const { sums, ofVectors, vectors, upstream } = placed({
        sums: touched([shape.rows], "f32"),
        ofVectors: touched([shape.rows], "f32"),
        vectors: numbers([shape.rows], "f32", 1, 4),
        upstream: numbers([shape.rows], "f32", 1, 5),
      });
      return inTurn(
        call({ sync: gramReduceSync, async: gramReduce }, { ...args, vectors }, { out: { sums } }),
        call({ sync: gramReduceVjpSync, async: gramReduceVjp }, { ...args, vectors, upstream }, { out: { ...grads(), vectors: ofVectors } }),
      );
    },
  },
  {
    calls: ["mmd"],
    what: "rbf, value",
    prepare: (...args) => call({ sync: mmdSync, async: mmd }, samples(...args).args, {}),
  },
  {
    calls: ["mmd"],
    what: "rbf, value + gradients",
    prepare: (...shape) => {
      const { args, grads } = samples(...shape);
      return call({ sync: mmdSync, async: mmd }, { ...args, gradients: true }, { out: grads() });
    },
  },
  {
    calls: ["fitKernel"],
    what: "hmk",
    needs: OF_FIT,
    prepare: ({ rows, depth }, dtype) => {
      const embeddings = numbers([rows, depth], dtype);
      return call({ sync: fitKernelSync, async: fitKernel }, { kernel: kernels.hmk(), embeddings }, {});
    },
  },
];

export function kernelCases(select: Select): SurveyCase[] {
  const ofPairs = (["rbf", "hmk"] as const).flatMap((name) => [pairValue(name), pairValueAndGradients(name)]);
  return [
    ...casesOf({ shapes: select(EMBEDDING_SHAPES), dtypes: BOTH_STORAGES, label: rowsLabel }, ofPairs),
    ...casesOf({ shapes: select(SAMPLE_SHAPES), dtypes: BOTH_STORAGES, label: rowsLabel }, OF_SAMPLES),
  ];
}
