import {
  linearTokenLogProbs,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
  sequenceLogProbs,
  sequenceLogProbsSync,
  sequenceLogProbsVjp,
  sequenceLogProbsVjpSync,
  tokenLogProbs,
  tokenLogProbsSync,
  tokenLogProbsVjp,
  tokenLogProbsVjpSync,
} from "dpo-kernels";
import { randomTargets } from "../inputs.js";
import { HEAD_SHAPES, type HeadShape, LOGIT_SHAPES, type LogitShape, PAIR_SHAPES, type PairShape } from "../shapes.js";
import {
  BOTH_STORAGES,
  type Call,
  call,
  casesOf,
  F32_ONLY,
  inTurn,
  type Placed,
  type Select,
  type Storage,
  type SurveyCase,
  type Work,
} from "./case.js";
import { evenOffsets, numbers, ones, touched } from "./inputs.js";

export const logitLabel = ({ rows, vocabulary }: LogitShape): string => `[${rows}, ${vocabulary}]`;
export const headLabel = ({ rows, depth, vocabulary }: HeadShape): string => `N=${rows} D=${depth} V=${vocabulary}`;
export const pairLabel = ({ pairs, tokens }: PairShape): string => `${pairs} pairs of ${tokens} tokens`;

const rowResults = (rows: number) => ({ logProbs: touched([rows], "f32"), logSumExp: touched([rows], "f64") });

function ofLogits({ rows, vocabulary }: LogitShape, dtype: Storage, placed: Placed): { value: Call; pullBack(): Call } {
  const inputs = { logits: placed(numbers([rows, vocabulary], dtype, 4)), targets: randomTargets(rows, vocabulary) };
  const out = rowResults(rows);
  return {
    value: call({ sync: tokenLogProbsSync, async: tokenLogProbs }, inputs, { out }),
    pullBack: () =>
      call(
        { sync: tokenLogProbsVjpSync, async: tokenLogProbsVjp },
        { ...inputs, logSumExp: out.logSumExp, upstream: ones(rows) },
        { out: placed({ logits: touched([rows, vocabulary], dtype) }) },
      ),
  };
}

function ofHead({ rows, depth, vocabulary }: HeadShape, dtype: Storage, placed: Placed): { value: Call; pullBack(): Call } {
  const hidden = numbers([rows, depth], dtype);
  const weight = numbers([vocabulary, depth], dtype, 0.1, 2);
  const inputs = { ...placed({ hidden, weight }), targets: randomTargets(rows, vocabulary) };
  const out = rowResults(rows);
  return {
    value: call({ sync: linearTokenLogProbsSync, async: linearTokenLogProbs }, inputs, { out }),
    pullBack: () =>
      call(
        { sync: linearTokenLogProbsVjpSync, async: linearTokenLogProbsVjp },
        { ...inputs, logSumExp: out.logSumExp, upstream: ones(rows) },
        { out: placed({ hidden: touched([rows, depth], dtype), weight: touched([vocabulary, depth], "f32") }) },
      ),
  };
}

function ofSequences({ pairs, tokens }: PairShape): { value: Call; pullBack: Call } {
  const rows = 2 * pairs * tokens;
  const layout = { targets: randomTargets(rows, 32_000), offsets: evenOffsets(rows, 2 * pairs) };
  return {
    value: call(
      { sync: sequenceLogProbsSync, async: sequenceLogProbs },
      { ...layout, logProbs: numbers([rows], "f32", 2) },
      { out: { logProbs: touched([2 * pairs], "f32"), tokenCounts: touched([2 * pairs], "f64") } },
    ),
    pullBack: call(
      { sync: sequenceLogProbsVjpSync, async: sequenceLogProbsVjp },
      { ...layout, upstream: ones(2 * pairs) },
      { out: { logProbs: touched([rows], "f32") } },
    ),
  };
}

const OF_LOGITS: readonly Work<LogitShape>[] = [
  { calls: ["tokenLogProbs"], what: "value", prepare: (...args) => ofLogits(...args).value },
  {
    calls: ["tokenLogProbs", "tokenLogProbsVjp"],
    what: "value + gradient",
    prepare: (...args) => {
      const { value, pullBack } = ofLogits(...args);
      return inTurn(value, pullBack());
    },
  },
];

const HEAD_VALUE: Work<HeadShape> = { calls: ["linearTokenLogProbs"], what: "value", prepare: (...args) => ofHead(...args).value };

export const HEAD_VALUE_AND_GRADIENTS: Work<HeadShape> = {
  calls: ["linearTokenLogProbs", "linearTokenLogProbsVjp"],
  what: "value + gradients",
  prepare: (...args) => {
    const { value, pullBack } = ofHead(...args);
    return inTurn(value, pullBack());
  },
};

const OF_SEQUENCES: readonly Work<PairShape>[] = [
  { calls: ["sequenceLogProbs"], what: "value", prepare: (shape) => ofSequences(shape).value },
  {
    calls: ["sequenceLogProbs", "sequenceLogProbsVjp"],
    what: "value + gradient",
    prepare: (shape) => {
      const { value, pullBack } = ofSequences(shape);
      return inTurn(value, pullBack);
    },
  },
];

export function logProbCases(select: Select): SurveyCase[] {
  return [
    ...casesOf({ shapes: select(LOGIT_SHAPES), dtypes: BOTH_STORAGES, label: logitLabel }, OF_LOGITS),
    ...casesOf({ shapes: select(HEAD_SHAPES), dtypes: BOTH_STORAGES, label: headLabel }, [HEAD_VALUE, HEAD_VALUE_AND_GRADIENTS]),
    ...casesOf({ shapes: select(PAIR_SHAPES), dtypes: F32_ONLY, label: pairLabel }, OF_SEQUENCES),
  ];
}
