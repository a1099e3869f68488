import { type Divergence, divergence, divergenceSync, divergences, linearDivergence, linearDivergenceSync } from "dpo-kernels";
import { HEAD_SHAPES, type HeadShape, LOGIT_SHAPES, type LogitShape } from "../shapes.js";
import { affordable, BOTH_STORAGES, call, casesOf, F32_ONLY, type Placed, type Select, type Storage, type SurveyCase, type Work } from "./case.js";
import { nearby, numbers, touched } from "./inputs.js";
import { headLabel, logitLabel } from "./log-probs.js";

const KINDS = { kl: divergences.kl(), js: divergences.js(), "renyi(2)": divergences.renyi({ alpha: 2 }) };

const TRANSPORT_WIDTH = 16;
const TRANSPORTS = {
  "wasserstein of an order": () => divergences.wasserstein(),
  "wasserstein of embeddings": (vocabulary: number) =>
    divergences.wasserstein({ embeddings: numbers([vocabulary, TRANSPORT_WIDTH], "f32", 1, 5), topK: Math.min(32, vocabulary) }),
};

type KindFor = (vocabulary: number) => Divergence;

function rowsOf({ rows, vocabulary }: LogitShape, dtype: Storage, placed: Placed) {
  return placed({ policy: numbers([rows, vocabulary], dtype, 2), reference: nearby([rows, vocabulary], dtype, 0.7, 2) });
}

const FACES = { sync: divergenceSync, async: divergence };

function value(what: string, kindFor: KindFor): Work<LogitShape> {
  return {
    calls: ["divergence"],
    what: `${what}, value`,
    prepare: (shape, dtype, placed) => {
      const out = placed({ values: touched([shape.rows], "f32") });
      return call(FACES, { ...rowsOf(shape, dtype, placed), kind: kindFor(shape.vocabulary) }, { out });
    },
  };
}

function valueAndGradient(what: string, kindFor: KindFor): Work<LogitShape> {
  return {
    calls: ["divergence"],
    what: `${what}, value + gradient`,
    prepare: (shape, dtype, placed) => {
      const { rows, vocabulary } = shape;
      const out = placed({ values: touched([rows], "f32"), gradPolicy: touched([rows, vocabulary], dtype) });
      return call(FACES, { ...rowsOf(shape, dtype, placed), kind: kindFor(vocabulary), upstream: 1 }, { out });
    },
  };
}

export const JS_VALUE_AND_GRADIENT = valueAndGradient("js", () => KINDS.js);

const both = ([name, kindFor]: [string, KindFor]): Work<LogitShape>[] => [value(name, kindFor), valueAndGradient(name, kindFor)];

function headsOf({ rows, depth, vocabulary }: HeadShape, dtype: Storage, placed: Placed) {
  const hidden = numbers([rows, depth], dtype);
  return placed({
    policy: { hidden, weight: numbers([vocabulary, depth], dtype, 0.1, 2) },
    reference: { hidden, weight: nearby([vocabulary, depth], dtype, 0.7 / Math.sqrt(depth), 0.1, 2) },
  });
}

const HEAD_FACES = { sync: linearDivergenceSync, async: linearDivergence };

const OF_HEADS: readonly Work<HeadShape>[] = [
  {
    calls: ["linearDivergence"],
    what: "js, value",
    prepare: (shape, dtype, placed) => {
      const out = placed({ values: touched([shape.rows], "f32") });
      return call(HEAD_FACES, { ...headsOf(shape, dtype, placed), kind: KINDS.js }, { out });
    },
  },
  {
    calls: ["linearDivergence"],
    what: "js, value + gradients",
    prepare: (shape, dtype, placed) => {
      const { rows, depth, vocabulary } = shape;
      const grads = { hidden: touched([rows, depth], dtype), weight: touched([vocabulary, depth], "f32") };
      const out = placed({ values: touched([rows], "f32"), ...grads });
      return call(HEAD_FACES, { ...headsOf(shape, dtype, placed), kind: KINDS.js, upstream: 1 }, { out });
    },
  },
];

export function divergenceCases(select: Select): SurveyCase[] {
  const ofKinds = Object.entries(KINDS).flatMap(([name, kind]) => both([name, () => kind]));
  const small = LOGIT_SHAPES.filter(({ name }) => name === "awkward");
  return [
    ...casesOf({ shapes: select(LOGIT_SHAPES), dtypes: BOTH_STORAGES, label: logitLabel }, ofKinds),
    ...casesOf({ shapes: small, dtypes: F32_ONLY, label: logitLabel }, Object.entries<KindFor>(TRANSPORTS).flatMap(both)),
    ...casesOf({ shapes: select(HEAD_SHAPES), dtypes: affordable, label: headLabel }, OF_HEADS),
  ];
}
