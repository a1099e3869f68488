import {
  cholesky,
  choleskySync,
  choleskyVjp,
  choleskyVjpSync,
  covariance,
  covarianceSync,
  eigh,
  eighSync,
  eighVjp,
  eighVjpSync,
  solveTriangular,
  solveTriangularSync,
  solveTriangularVjp,
  solveTriangularVjpSync,
  type Tensor,
  tensor,
} from "dpo-kernels";
import { MATRIX_SHAPES, type MatrixShape, SAMPLE_SHAPES, type SampleShape } from "../shapes.js";
import { BOTH_STORAGES, type Call, call, casesOf, F32_ONLY, inTurn, type Placed, type Select, type SurveyCase, type Work } from "./case.js";
import { numbers, touched } from "./inputs.js";
import { rowsLabel } from "./kernels.js";

const matrixLabel = ({ size, columns }: MatrixShape): string => `[${size}, ${size}], ${columns} columns`;

/** Positive definite, its eigenvalues apart, for of repeated ones the vectors have no gradient. */
function positive(size: number): Tensor {
  const { data } = covarianceSync({ x: numbers([2 * size, size], "f32") }).covariance;
  for (let i = 0; i < size; i++) data[i * (size + 1)] = (data[i * (size + 1)] as number) + i;
  return tensor(Float32Array.from(data), [size, size]);
}

type Pair = { value: Call; pullBack: Call };

function ofCholesky({ size }: MatrixShape, placed: Placed): Pair {
  const { a, factor, upstream, grad } = placed({
    a: positive(size),
    factor: touched([size, size], "f32"),
    upstream: numbers([size, size], "f32", 1, 3),
    grad: touched([size, size], "f32"),
  });
  return {
    value: call({ sync: choleskySync, async: cholesky }, { a }, { out: { factor } }),
    pullBack: call({ sync: choleskyVjpSync, async: choleskyVjp }, { factor, upstream }, { out: { a: grad } }),
  };
}

function ofTriangular({ size, columns }: MatrixShape, placed: Placed): Pair {
  const { a, b, x, upstream, out } = placed({
    a: choleskySync({ a: positive(size) }).factor,
    b: numbers([size, columns], "f32", 1, 2),
    x: touched([size, columns], "f32"),
    upstream: numbers([size, columns], "f32", 1, 3),
    out: { a: touched([size, size], "f32"), b: touched([size, columns], "f32") },
  });
  return {
    value: call({ sync: solveTriangularSync, async: solveTriangular }, { a, b }, { out: { x } }),
    pullBack: call({ sync: solveTriangularVjpSync, async: solveTriangularVjp }, { a, x, upstream }, { out }),
  };
}

function ofEigh({ size }: MatrixShape, placed: Placed): Pair {
  const { a, out, upstream, grad } = placed({
    a: positive(size),
    out: { values: touched([size], "f32"), vectors: touched([size, size], "f32") },
    upstream: { values: numbers([size], "f32", 1, 3), vectors: numbers([size, size], "f32", 1, 4) },
    grad: touched([size, size], "f32"),
  });
  return {
    value: call({ sync: eighSync, async: eigh }, { a }, { out }),
    pullBack: call({ sync: eighVjpSync, async: eighVjp }, { ...out, upstream }, { out: { a: grad } }),
  };
}

/** An operation and, in turn, its pull-back. */
function works(name: string, pairOf: (shape: MatrixShape, placed: Placed) => Pair): Work<MatrixShape>[] {
  return [
    { calls: [name], what: "value", prepare: (shape, _, placed) => pairOf(shape, placed).value },
    {
      calls: [name, `${name}Vjp`],
      what: "value + gradient",
      prepare: (shape, _, placed) => {
        const { value, pullBack } = pairOf(shape, placed);
        return inTurn(value, pullBack);
      },
    },
  ];
}

const COVARIANCE: Work<SampleShape> = {
  calls: ["covariance"],
  what: "ledoit_wolf, value",
  prepare: ({ rows, depth }, dtype, placed) => {
    const x = placed(numbers([rows, depth], dtype));
    const out = { covariance: touched([depth, depth], "f64") };
    return call({ sync: covarianceSync, async: covariance }, { x, method: "ledoit_wolf" as const }, { out });
  },
};

export function matrixCases(select: Select): SurveyCase[] {
  return [
    ...casesOf({ shapes: select(MATRIX_SHAPES), dtypes: F32_ONLY, label: matrixLabel }, [
      ...works("cholesky", ofCholesky),
      ...works("solveTriangular", ofTriangular),
      ...works("eigh", ofEigh),
    ]),
    ...casesOf({ shapes: select(SAMPLE_SHAPES), dtypes: BOTH_STORAGES, label: rowsLabel }, [COVARIANCE]),
  ];
}
