import { type Divergence, divergence, divergenceSync, divergences, linearDivergence, linearDivergenceSync } from "dpo-kernels";
import { HEAD_SHAPES, type HeadShape, LOGIT_SHAPES, type LogitShape } from "../shapes.js";
import { BOTH_STORAGES, call, casesOf, F32_ONLY, type Select, type SurveyCase, type Work } from "./case.js";
import { nearby, numbers, touched } from "./inputs.js";
import { headLabel, logitLabel } from "./log-probs.js";

const KINDS = { kl: divergences.kl(), js: divergences.js(), "renyi(2)": divergences.renyi({ alpha: 2 }) };

const TRANSPORT_WIDTH = 16;
const TRANSPORTS = {
  "wasserstein of an order": () => divergences.wasserstein(),
  "wasserstein of embeddings": (vocabulary: number) =>
    divergences.wasserstein({ embeddings: numbers([vocabulary, TRANSPORT_WIDTH], "f32", 1, 5), topK: Math.min(32, vocabulary) }),
};

function ofLogits(what: string, kindFor: (vocabulary: number) => Divergence): Work<LogitShape>[] {
  const rowsOf: (...args: Parameters<Work<LogitShape>["prepare"]>) => Parameters<typeof divergenceSync>[0] = (shape, dtype, placed) => ({
    ...placed({
      policy: numbers([shape.rows, shape.vocabulary], dtype, 2),
      reference: nearby([shape.rows, shape.vocabulary], dtype, 0.7, 2),
    }),
    kind: kindFor(shape.vocabulary),
  });
  const faces = { sync: divergenceSync, async: divergence };
  return [
    {
      calls: ["divergence"],
      what: `${what}, value`,
      prepare: (shape, dtype, placed) => call(faces, rowsOf(shape, dtype, placed), { out: placed({ values: touched([shape.rows], "f32") }) }),
    },
    {
      calls: ["divergence"],
      what: `${what}, value + gradient`,
      prepare: (shape, dtype, placed) => {
        const out = placed({ values: touched([shape.rows], "f32"), gradPolicy: touched([shape.rows, shape.vocabulary], dtype) });
        return call(faces, { ...rowsOf(shape, dtype, placed), upstream: 1 }, { out });
      },
    },
  ];
}

function ofHead(what: string, kind: Divergence): Work<HeadShape>[] {
  const headsOf: (...args: Parameters<Work<HeadShape>["prepare"]>) => Parameters<typeof linearDivergenceSync>[0] = (shape, dtype, placed) => {
    const { rows, depth, vocabulary } = shape;
    const hidden = numbers([rows, depth], dtype);
    const heads = {
      policy: { hidden, weight: numbers([vocabulary, depth], dtype, 0.1, 2) },
      reference: { hidden, weight: nearby([vocabulary, depth], dtype, 0.7 / Math.sqrt(depth), 0.1, 2) },
    };
    return { ...placed(heads), kind };
  };
  const faces = { sync: linearDivergenceSync, async: linearDivergence };
  return [
    {
      calls: ["linearDivergence"],
      what: `${what}, value`,
      prepare: (shape, dtype, placed) => call(faces, headsOf(shape, dtype, placed), { out: placed({ values: touched([shape.rows], "f32") }) }),
    },
    {
      calls: ["linearDivergence"],
      what: `${what}, value + gradients`,
      prepare: (shape, dtype, placed) => {
        const { rows, depth, vocabulary } = shape;
        const grads = { hidden: touched([rows, depth], dtype), weight: touched([vocabulary, depth], "f32") };
        return call(faces, { ...headsOf(shape, dtype, placed), upstream: 1 }, { out: placed({ values: touched([rows], "f32"), ...grads }) });
      },
    },
  ];
}

export function divergenceCases(select: Select): SurveyCase[] {
  const ofKinds = Object.entries(KINDS).flatMap(([name, kind]) => ofLogits(name, () => kind));
  const ofTransports = Object.entries(TRANSPORTS).flatMap(([name, kindFor]) => ofLogits(name, kindFor));
  const small = LOGIT_SHAPES.filter(({ name }) => name === "awkward");
  return [
    ...casesOf({ shapes: select(LOGIT_SHAPES), dtypes: BOTH_STORAGES, label: logitLabel }, ofKinds),
    ...casesOf({ shapes: small, dtypes: F32_ONLY, label: logitLabel }, ofTransports),
    ...casesOf({ shapes: select(HEAD_SHAPES), dtypes: BOTH_STORAGES, label: headLabel }, ofHead("js", KINDS.js)),
  ];
}
