import { DpoKernels, type ObjectiveInputs, type PolicyInput, preferenceLoss, preferenceLossSync, type StepOut } from "dpo-kernels";
import { randomTargets } from "../inputs.js";
import { HEAD_SHAPES, type HeadShape, LOGIT_SHAPES, type LogitShape, PAIR_SHAPES, type PairShape } from "../shapes.js";
import {
  affordable,
  BOTH_STORAGES,
  type Call,
  call,
  casesOf,
  F32_ONLY,
  type Placed,
  type Select,
  type Storage,
  type SurveyCase,
  type Work,
} from "./case.js";
import { evenOffsets, numbers, touched } from "./inputs.js";
import { headLabel, logitLabel, pairLabel } from "./log-probs.js";

const PAIRS = 2;

function layoutOf(rows: number, vocabulary: number) {
  return { targets: randomTargets(rows, vocabulary), offsets: evenOffsets(rows, 2 * PAIRS) };
}

const reference = { logProbs: new Float32Array(2 * PAIRS).fill(-1000) };

function ofLogits({ rows, vocabulary }: LogitShape, dtype: Storage, placed: Placed): PolicyInput {
  return { ...placed({ logits: numbers([rows, vocabulary], dtype, 3) }), ...layoutOf(rows, vocabulary) };
}

function ofHead({ rows, depth, vocabulary }: HeadShape, dtype: Storage, placed: Placed): PolicyInput {
  const inputs = placed({ hidden: numbers([rows, depth], dtype), weight: numbers([vocabulary, depth], dtype, 0.1, 2) });
  return { ...inputs, ...layoutOf(rows, vocabulary) };
}

function lossOf(policy: PolicyInput): Call {
  const objective = new DpoKernels();
  const inputs: ObjectiveInputs = { policy, reference };
  return { sync: () => objective.lossSync(inputs), async: () => objective.loss(inputs) };
}

function stepOf(policy: PolicyInput, out: NonNullable<StepOut["out"]>): Call {
  const objective = new DpoKernels();
  const inputs: ObjectiveInputs = { policy, reference };
  return { sync: () => objective.lossAndGradSync(inputs, { out }), async: () => objective.lossAndGrad(inputs, { out }) };
}

const AFTER_LOGITS = ["sequenceLogProbs", "preference"];
const NEEDS = {
  logits: ["tokenLogProbs", "tokenLogProbsVjp", "sequenceLogProbsVjp", ...AFTER_LOGITS],
  head: ["linearTokenLogProbs", "linearPreference", ...AFTER_LOGITS],
};

const OF_LOGITS: readonly Work<LogitShape>[] = [
  { calls: ["DpoKernels.loss"], what: "from logits, value", needs: NEEDS.logits, prepare: (...args) => lossOf(ofLogits(...args)) },
  {
    calls: ["DpoKernels.lossAndGrad"],
    what: "from logits, value + gradient",
    needs: NEEDS.logits,
    prepare: (shape, dtype, placed) =>
      stepOf(ofLogits(shape, dtype, placed), { policy: placed({ logits: touched([shape.rows, shape.vocabulary], dtype) }) }),
  },
];

const OF_HEAD: readonly Work<HeadShape>[] = [
  { calls: ["DpoKernels.loss"], what: "from hidden × head, value", needs: NEEDS.head, prepare: (...args) => lossOf(ofHead(...args)) },
  {
    calls: ["DpoKernels.lossAndGrad"],
    what: "from hidden × head, value + gradients",
    needs: NEEDS.head,
    prepare: (shape, dtype, placed) => {
      const { rows, depth, vocabulary } = shape;
      return stepOf(ofHead(shape, dtype, placed), {
        policy: placed({ hidden: touched([rows, depth], dtype), weight: touched([vocabulary, depth], "f32") }),
      });
    },
  },
];

export const LOSS: Work<PairShape> = {
  calls: ["preferenceLoss"],
  what: "sigmoid, value + gradient",
  needs: ["preference"],
  prepare: ({ pairs }) =>
    call(
      { sync: preferenceLossSync, async: preferenceLoss },
      { policy: numbers([2 * pairs], "f32", 50), reference: numbers([2 * pairs], "f32", 50, 2) },
      { out: { losses: touched([pairs], "f32"), rewards: touched([2 * pairs], "f32"), policy: touched([2 * pairs], "f32") } },
    ),
};

export function preferenceCases(select: Select): SurveyCase[] {
  return [
    ...casesOf({ shapes: select(PAIR_SHAPES), dtypes: F32_ONLY, label: pairLabel }, [LOSS]),
    ...casesOf({ shapes: select(LOGIT_SHAPES), dtypes: BOTH_STORAGES, label: logitLabel }, OF_LOGITS),
    ...casesOf({ shapes: select(HEAD_SHAPES), dtypes: affordable, label: headLabel }, OF_HEAD),
  ];
}
