/** Every exported operation with small valid arguments and what it must refuse: one entry here puts an operation under test. */

import {
  cholesky,
  choleskySync,
  choleskyVjp,
  choleskyVjpSync,
  covariance,
  covarianceSync,
  DpoKernels,
  type DType,
  divergence,
  divergenceSync,
  divergences,
  type ErrorCode,
  eigh,
  eighSync,
  eighVjp,
  eighVjpSync,
  gram,
  gramReduce,
  gramReduceSync,
  gramReduceVjp,
  gramReduceVjpSync,
  gramSync,
  gramVjp,
  gramVjpSync,
  kernels,
  linearDivergence,
  linearDivergenceSync,
  linearTokenLogProbs,
  linearTokenLogProbsSync,
  linearTokenLogProbsVjp,
  linearTokenLogProbsVjpSync,
  mmd,
  mmdSync,
  type NystromFeatures,
  nystrom,
  nystromSync,
  type ObjectiveInputs,
  type ObjectiveOptions,
  pairKernel,
  pairKernelSync,
  preferenceLoss,
  preferenceLossSync,
  randomFeatures,
  randomFeaturesSync,
  type StepOut,
  sequenceLogProbs,
  sequenceLogProbsSync,
  sequenceLogProbsVjp,
  sequenceLogProbsVjpSync,
  solveTriangular,
  solveTriangularSync,
  solveTriangularVjp,
  solveTriangularVjpSync,
  type Tensor,
  tensor,
  tokenLogProbs,
  tokenLogProbsSync,
  tokenLogProbsVjp,
  tokenLogProbsVjpSync,
} from "dpo-kernels";
import { tensorOf } from "./cases.js";
import { createRandom } from "./random.js";
import type { Storage } from "./storage.js";
import { filled, floats, integers } from "./tensors.js";

/** Arguments of any operation; nested for the objective. Paths into them are joined by dots. */
export type Args = Record<string, unknown>;

export interface BadShape {
  readonly shape: readonly number[];
  /** The argument that the message may name instead, where shapes must agree. */
  readonly names?: readonly string[];
}

export interface InputRules {
  /** "mask": targets of a vocabulary that the operation does not know. */
  readonly holds: "numbers" | "logits" | "targets" | "mask" | "offsets";
  readonly badShapes: readonly BadShape[];
  readonly badDTypes: readonly DType[];
  readonly optional?: true;
  /** What else a message may call it. */
  readonly alias?: string;
}

/** A wrong call that the rules do not cover. */
export interface SpecialCase {
  readonly title: string;
  readonly change: (args: Args) => void;
  readonly codes: readonly ErrorCode[];
  readonly names: readonly string[];
  readonly index?: number;
}

export interface OperationCase {
  readonly name: string;
  /** The operations of a backend that it calls; left out: it is tested on backends that have all. */
  readonly needs?: readonly string[];
  /** Storage types of its main arguments. */
  readonly dtypes: readonly Storage[];
  /** Fresh valid arguments. */
  args(dtype: Storage): Args;
  readonly inputs: Readonly<Record<string, InputRules>>;
  /** A fresh tensor for every result that may be supplied, by path. */
  outs(dtype: Storage): Record<string, Tensor>;
  /** Values that an option must refuse. */
  readonly badOptions: Readonly<Record<string, readonly unknown[]>>;
  readonly special: readonly SpecialCase[];
  sync(args: Args, out: Args): unknown;
  async(args: Args, out: Args, signal?: AbortSignal): Promise<unknown>;
  /** What a failed call must leave as it was, beside its arguments. */
  state?(): unknown;
}

export const PAIRS = 2;
export const TOKENS = 8;
export const WORDS = 5;
export const WIDTH = 3;
const SEQUENCES = 2 * PAIRS;
const OFFSETS = [0, 2, 3, 6, 8];
const TARGETS = [0, 4, 2, 1, 3, 3, 0, 2];

const ALL_TYPES = ["f32", "f64", "f16", "bf16"] as const;
const ARITHMETIC = ["f32", "f64"] as const;
const NOT_A_NUMBER_OPTION = ["hot", "2", {}, true] as const;
/** For options that must be finite and greater than 0. */
const NOT_POSITIVE = [Number.NaN, Infinity, -1, 0, ...NOT_A_NUMBER_OPTION] as const;
/** For options that must be finite and at least 0. */
const NOT_NON_NEGATIVE = [Number.NaN, Infinity, -1, ...NOT_A_NUMBER_OPTION] as const;
const NOT_FINITE = [Number.NaN, Infinity, -Infinity, ...NOT_A_NUMBER_OPTION] as const;
const NOT_A_LIMIT = [Number.NaN, Infinity, -1, 0, 1.5, ...NOT_A_NUMBER_OPTION] as const;

type Sync = (args: never, options: never) => unknown;
type Async = (args: never, options: never) => Promise<unknown>;

/** The two faces of an operation, for arguments of which only the tests know that they are wrong. */
function faces(sync: Sync, async: Async): Pick<OperationCase, "sync" | "async"> {
  return {
    sync: (args, out) => sync(args as never, { out } as never),
    async: (args, out, signal) => async(args as never, { out, ...(signal && { signal }) } as never),
  };
}

const wide = (dtype: Storage): Storage => (dtype === "f64" ? "f64" : "f32");
const random = () => createRandom(20250103);
const targets = () => integers(TARGETS, [TOKENS]);
const offsets = () => integers(OFFSETS, [SEQUENCES + 1]);

function vectorRules(length: number, badDTypes: readonly DType[], holds: InputRules["holds"] = "numbers"): InputRules {
  return { holds, badDTypes, badShapes: [{ shape: [length - 1] }, { shape: [length + 1] }, { shape: [1, length] }] };
}

/** A vector whose length others must have: a wrong one may be reported of them. */
function leadingVectorRules(length: number, names: readonly string[], badDTypes: readonly DType[]): InputRules {
  return {
    holds: "numbers",
    badDTypes,
    badShapes: [{ shape: [length - 2], names }, { shape: [length + 2], names }, { shape: [length - 1], names }, { shape: [1, length] }],
  };
}

const TARGET_RULES = vectorRules(TOKENS, ["f32", "f64", "f16"], "targets");
const OFFSET_RULES: InputRules = {
  holds: "offsets",
  badDTypes: ["f32", "f64", "bf16"],
  badShapes: [{ shape: [1] }, { shape: [2] }, { shape: [SEQUENCES] }, { shape: [1, SEQUENCES + 1] }],
};
const LOGIT_RULES: InputRules = {
  holds: "logits",
  badDTypes: ["i32"],
  badShapes: [{ shape: [TOKENS * WORDS] }, { shape: [TOKENS, WORDS, 1] }, { shape: [TOKENS - 1, WORDS], names: ["targets"] }],
};
const HEAD_RULES: Record<string, InputRules> = {
  hidden: {
    holds: "numbers",
    badDTypes: ["i32"],
    badShapes: [
      { shape: [TOKENS * WIDTH] },
      { shape: [TOKENS, WIDTH, 1], names: ["offsets"] },
      { shape: [TOKENS - 1, WIDTH], names: ["targets"] },
      { shape: [TOKENS, WIDTH + 1], names: ["weight"] },
    ],
  },
  weight: {
    holds: "numbers",
    badDTypes: ["i32", "f64", "bf16"],
    badShapes: [
      { shape: [WORDS * WIDTH] },
      { shape: [WORDS, WIDTH + 1] },
      { shape: [WORDS, WIDTH, 1] },
      { shape: [WORDS + 1, WIDTH], names: ["bias"] },
    ],
  },
  bias: { ...vectorRules(WORDS, ["i32", "f64", "f16"]), optional: true },
};
const ROW_RULES = vectorRules(TOKENS, ["i32", "f16", "bf16"]);
const LOGIT_OPTIONS = { temperature: NOT_POSITIVE, softcap: NOT_NON_NEGATIVE };

function rowOuts(dtype: Storage): Record<string, Tensor> {
  const type = wide(dtype);
  return {
    logProbs: filled([TOKENS], type),
    logSumExp: filled([TOKENS], "f64"),
    entropy: filled([TOKENS], type),
    meanLogit: filled([TOKENS], type),
  };
}

function headOuts(dtype: Storage): Record<string, Tensor> {
  return {
    hidden: filled([TOKENS, WIDTH], dtype),
    weight: filled([WORDS, WIDTH], wide(dtype)),
    bias: filled([WORDS], wide(dtype)),
  };
}

const logits = (dtype: Storage) => floats(random(), [TOKENS, WORDS], dtype);
function head(dtype: Storage): { hidden: Tensor; weight: Tensor; bias: Tensor } {
  const r = random();
  return { hidden: floats(r, [TOKENS, WIDTH], dtype), weight: floats(r, [WORDS, WIDTH], dtype), bias: floats(r, [WORDS], dtype) };
}
const rows = (dtype: Storage) => floats(random(), [TOKENS], wide(dtype));

function minusInfinityRow(path: string): SpecialCase {
  return {
    title: `${path} with a row of -inf`,
    change: (args) => {
      const [parent = "", key = ""] = path.includes(".") ? path.split(".") : ["", path];
      const holder = (parent === "" ? args : args[parent]) as Args;
      const { data, shape } = holder[key] as Tensor;
      const width = shape.at(-1) ?? 0;
      (data as Float32Array).fill(-Infinity, 2 * width, 3 * width);
    },
    codes: ["ERR_NONFINITE"],
    names: [path.split(".").at(-1) ?? path],
    index: 2 * WORDS,
  };
}

const tokenLogProbsCase: OperationCase = {
  name: "tokenLogProbs",
  needs: ["tokenLogProbs"],
  dtypes: ALL_TYPES,
  args: (dtype) => ({ logits: logits(dtype), targets: targets(), entropy: true, meanLogit: true }),
  inputs: { logits: LOGIT_RULES, targets: TARGET_RULES },
  outs: rowOuts,
  badOptions: LOGIT_OPTIONS,
  special: [minusInfinityRow("logits")],
  ...faces(tokenLogProbsSync, tokenLogProbs),
};

const tokenLogProbsVjpCase: OperationCase = {
  name: "tokenLogProbsVjp",
  needs: ["tokenLogProbs", "tokenLogProbsVjp"],
  dtypes: ALL_TYPES,
  args: (dtype) => {
    const inputs = { logits: logits(dtype), targets: targets() };
    return { ...inputs, logSumExp: tokenLogProbsSync(inputs).logSumExp, upstream: rows(dtype) };
  },
  inputs: { logits: LOGIT_RULES, targets: TARGET_RULES, logSumExp: { ...ROW_RULES, optional: true }, upstream: ROW_RULES },
  outs: (dtype) => ({ logits: filled([TOKENS, WORDS], dtype) }),
  badOptions: LOGIT_OPTIONS,
  special: [],
  ...faces(tokenLogProbsVjpSync, tokenLogProbsVjp),
};

const linearTokenLogProbsCase: OperationCase = {
  name: "linearTokenLogProbs",
  needs: ["linearTokenLogProbs"],
  dtypes: ALL_TYPES,
  args: (dtype) => ({ ...head(dtype), targets: targets(), entropy: true, meanLogit: true }),
  inputs: { ...HEAD_RULES, targets: TARGET_RULES },
  outs: rowOuts,
  badOptions: { ...LOGIT_OPTIONS, memoryLimit: NOT_A_LIMIT },
  special: [],
  ...faces(linearTokenLogProbsSync, linearTokenLogProbs),
};

const linearTokenLogProbsVjpCase: OperationCase = {
  name: "linearTokenLogProbsVjp",
  needs: ["linearTokenLogProbs", "linearTokenLogProbsVjp"],
  dtypes: ALL_TYPES,
  args: (dtype) => {
    const inputs = { ...head(dtype), targets: targets() };
    return { ...inputs, logSumExp: linearTokenLogProbsSync(inputs).logSumExp, upstream: rows(dtype) };
  },
  inputs: { ...HEAD_RULES, targets: TARGET_RULES, logSumExp: { ...ROW_RULES, optional: true }, upstream: ROW_RULES },
  outs: headOuts,
  badOptions: { ...LOGIT_OPTIONS, memoryLimit: NOT_A_LIMIT },
  special: [],
  ...faces(linearTokenLogProbsVjpSync, linearTokenLogProbsVjp),
};

/** The pull-backs that compute logSumExp themselves first. */
function withoutLogSumExp(operation: OperationCase): OperationCase {
  const { logSumExp: _, ...inputs } = operation.inputs;
  return {
    ...operation,
    name: `${operation.name} without logSumExp`,
    args: (dtype) => {
      const { logSumExp: __, ...args } = operation.args(dtype);
      return args;
    },
    inputs,
  };
}

const SEQUENCE_OPTIONS = { reduction: ["median", 1, Number.NaN], ldAlpha: NOT_NON_NEGATIVE };
const LD_ALPHA_WITH_MEAN: SpecialCase = {
  title: "ldAlpha with the mean",
  change: (args) => Object.assign(args, { reduction: "mean", ldAlpha: 0.5 }),
  codes: ["ERR_RANGE"],
  names: ["ldAlpha"],
};

const sequenceLogProbsCase: OperationCase = {
  name: "sequenceLogProbs",
  needs: ["sequenceLogProbs"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ logProbs: rows(dtype), targets: targets(), offsets: offsets() }),
  inputs: {
    logProbs: ROW_RULES,
    targets: { ...TARGET_RULES, holds: "mask", badShapes: [{ shape: [TOKENS - 1], names: ["logProbs"] }] },
    offsets: OFFSET_RULES,
  },
  outs: (dtype) => ({ logProbs: filled([SEQUENCES], dtype), tokenCounts: filled([SEQUENCES], "f64") }),
  badOptions: SEQUENCE_OPTIONS,
  special: [LD_ALPHA_WITH_MEAN],
  ...faces(sequenceLogProbsSync, sequenceLogProbs),
};

const sequenceLogProbsVjpCase: OperationCase = {
  name: "sequenceLogProbsVjp",
  needs: ["sequenceLogProbs", "sequenceLogProbsVjp"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ targets: targets(), offsets: offsets(), upstream: floats(random(), [SEQUENCES], dtype) }),
  inputs: {
    targets: { ...TARGET_RULES, holds: "mask", badShapes: [{ shape: [2, TOKENS / 2] }] },
    offsets: OFFSET_RULES,
    upstream: vectorRules(SEQUENCES, ["i32", "f16", "bf16"]),
  },
  outs: (dtype) => ({ logProbs: filled([TOKENS], dtype) }),
  badOptions: SEQUENCE_OPTIONS,
  special: [LD_ALPHA_WITH_MEAN],
  ...faces(sequenceLogProbsVjpSync, sequenceLogProbsVjp),
};

function badKernels(place: (args: Args, kernel: unknown) => void): SpecialCase[] {
  const withSigma = (sigma: number) => {
    const kernel = kernels.rbf({ sigma: 1 });
    kernel.parameters.sigma?.data.fill(sigma);
    return kernel;
  };
  const withLogits = (logit: number) => {
    const mixture = kernels.mixture({ one: kernels.rbf(), other: kernels.polynomial() });
    mixture.logits.data[1] = logit;
    return mixture;
  };
  const infinite = (size: number) => tensor(new Float64Array(size).fill(Infinity), [size]);
  const withoutSigma = { ...kernels.rbf(), parameters: {} };
  const disposed = kernels.rbf();
  disposed.parameters.sigma?.dispose();
  const cases: [string, unknown, ErrorCode[], string[]][] = [
    ["kernel left out", undefined, ["ERR_DTYPE", "ERR_SHAPE", "ERR_RANGE"], ["kernel"]],
    ["kernel that is a name", "rbf", ["ERR_DTYPE", "ERR_RANGE"], ["kernel"]],
    ["kernel without anything", {}, ["ERR_DTYPE", "ERR_RANGE"], ["kernel"]],
    ["kernel of an unknown name", { ...kernels.rbf(), name: "cosine" }, ["ERR_RANGE", "ERR_DTYPE"], ["kernel"]],
    ["kernel without its parameter", withoutSigma, ["ERR_SHAPE", "ERR_RANGE", "ERR_DTYPE"], ["kernel", "parameters", "sigma"]],
    ["sigma NaN", withSigma(Number.NaN), ["ERR_NONFINITE", "ERR_RANGE"], ["sigma", "parameters"]],
    ["sigma inf", withSigma(Infinity), ["ERR_NONFINITE", "ERR_RANGE"], ["sigma", "parameters"]],
    ["sigma 0", withSigma(0), ["ERR_RANGE"], ["sigma"]],
    ["sigma below 0", withSigma(-0.5), ["ERR_RANGE"], ["sigma"]],
    ["sigma disposed of", disposed, ["ERR_DISPOSED"], ["sigma", "parameters"]],
    ["logits that are not finite", withLogits(Number.NaN), ["ERR_NONFINITE"], ["logits"]],
    ["a factor that is not finite", kernels.mahalanobis({ factor: infinite(WIDTH) }), ["ERR_NONFINITE"], ["factor"]],
    ["a factor of another width", kernels.mahalanobis({ factor: tensor(new Float64Array(WIDTH + 1), [WIDTH + 1]) }), ["ERR_SHAPE"], ["factor"]],
  ];
  return cases.map(([title, kernel, codes, names]) => ({ title, change: (args) => place(args, kernel), codes, names }));
}

function zeroRow(path: readonly string[]): SpecialCase {
  return {
    title: `${path.join(".")} with a zero row, which has no direction`,
    change: (args) => {
      const holder = path.slice(0, -1).reduce((at, key) => at[key] as Args, args);
      const { data } = holder[path.at(-1) ?? ""] as Tensor;
      data.fill(0, WIDTH, 2 * WIDTH);
    },
    codes: ["ERR_RANGE"],
    names: [path.at(-1) ?? ""],
    index: WIDTH,
  };
}

const PAIR_ROWS = 4;
const PAIR_RULES: Record<string, InputRules> = {
  u: {
    holds: "numbers",
    badDTypes: ["i32"],
    badShapes: [
      { shape: [PAIR_ROWS * WIDTH] },
      { shape: [PAIR_ROWS, WIDTH, 1] },
      { shape: [PAIR_ROWS - 1, WIDTH], names: ["v", "logK"] },
      { shape: [PAIR_ROWS, WIDTH + 1], names: ["v"] },
    ],
  },
  v: {
    holds: "numbers",
    badDTypes: ["i32", "f64", "bf16"],
    badShapes: [
      { shape: [PAIR_ROWS * WIDTH] },
      { shape: [PAIR_ROWS, WIDTH, 1] },
      { shape: [PAIR_ROWS - 1, WIDTH] },
      { shape: [PAIR_ROWS, WIDTH + 1] },
    ],
  },
};

function pairArgs(dtype: Storage): Args {
  const r = random();
  return { u: floats(r, [PAIR_ROWS, WIDTH], dtype), v: floats(r, [PAIR_ROWS, WIDTH], dtype), kernel: kernels.rbf({ sigma: 0.8 }) };
}

const pairKernelCase: OperationCase = {
  name: "pairKernel",
  needs: ["pairKernel"],
  dtypes: ALL_TYPES,
  args: pairArgs,
  inputs: PAIR_RULES,
  outs: (dtype) => ({ logK: filled([PAIR_ROWS], wide(dtype)) }),
  badOptions: {},
  special: [
    ...badKernels((args, kernel) => {
      args.kernel = kernel;
    }),
    zeroRow(["u"]),
    zeroRow(["v"]),
  ],
  ...faces(pairKernelSync, pairKernel),
};

const pairKernelVjpCase: OperationCase = {
  ...pairKernelCase,
  name: "pairKernel with upstream",
  needs: ["pairKernel", "pairKernelVjp"],
  args: (dtype) => ({ ...pairArgs(dtype), upstream: floats(random(), [PAIR_ROWS], wide(dtype)) }),
  inputs: { ...PAIR_RULES, upstream: { ...vectorRules(PAIR_ROWS, ["i32", "f16", "bf16"]), optional: true } },
  outs: (dtype) => ({
    logK: filled([PAIR_ROWS], wide(dtype)),
    u: filled([PAIR_ROWS, WIDTH], dtype),
    v: filled([PAIR_ROWS, WIDTH], dtype),
  }),
};

export const BAD_PREFERENCE_OPTIONS: Readonly<Record<string, readonly unknown[]>> = {
  loss: ["dpo", "", "toString", 3, [], ["sigmoid", "dpo"], Array.from({ length: 9 }, () => "sigmoid")],
  lossWeights: [[Number.NaN], [Infinity], ["1"]],
  transform: ["kl", "", "toString", 0],
  transformAlpha: NOT_FINITE,
  beta: NOT_POSITIVE,
  gamma: NOT_FINITE,
  labelSmoothing: [Number.NaN, Infinity, -0.01, 0.6, 1, ...NOT_A_NUMBER_OPTION],
  discopopTau: NOT_POSITIVE,
  simpoGamma: NOT_FINITE,
  cpoAlpha: NOT_FINITE,
  bcoDelta: NOT_FINITE,
  ktoKl: NOT_FINITE,
  ktoDesirableWeight: NOT_NON_NEGATIVE,
  ktoUndesirableWeight: NOT_NON_NEGATIVE,
};

function preferenceTensors(dtype: Storage): Record<string, Tensor> {
  const r = random();
  return {
    policy: floats(r, [SEQUENCES], dtype, -9, -1),
    reference: floats(r, [SEQUENCES], dtype, -9, -1),
    logKernel: floats(r, [SEQUENCES], dtype, -3, 0),
    tokenCounts: floats(r, [SEQUENCES], "f64", 1, 9),
    weights: floats(r, [PAIRS], "f64", 0.5, 2),
  };
}

/** Combinations of options that are refused, with the name in the message. */
export const REFUSED_TOGETHER: readonly { title: string; options: object; names: readonly string[] }[] = [
  { title: "a transform with a loss whose log Z stays", options: { loss: "apo_zero", transform: "forward_kl" }, names: ["transform"] },
  {
    title: "a transform with a mix of which one does not go",
    options: { loss: ["sigmoid", "kto"], transform: "js_divergence" },
    names: ["transform"],
  },
  { title: "exo_pair without smoothing", options: { loss: "exo_pair" }, names: ["labelSmoothing"] },
  { title: "exo_pair with smoothing ½", options: { loss: "exo_pair", labelSmoothing: 0.5 }, names: ["labelSmoothing"] },
  { title: "robust with smoothing ½", options: { loss: "robust", labelSmoothing: 0.5 }, names: ["labelSmoothing"] },
];

const preferenceCase: OperationCase = {
  name: "preferenceLoss",
  needs: ["preference"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ ...preferenceTensors(dtype), gamma: 0.3 }),
  inputs: {
    policy: leadingVectorRules(SEQUENCES, ["policy", "reference"], ["i32", "f16", "bf16"]),
    reference: vectorRules(SEQUENCES, ["i32", "f16", "bf16"]),
    logKernel: vectorRules(SEQUENCES, ["i32", "f16", "bf16"]),
    tokenCounts: { ...vectorRules(SEQUENCES, ["i32", "f32", "bf16"]), optional: true },
    weights: { ...vectorRules(PAIRS, ["i32", "f32", "f16"]), optional: true },
  },
  outs: (dtype) => ({
    losses: filled([PAIRS], dtype),
    rewards: filled([SEQUENCES], dtype),
    policy: filled([SEQUENCES], dtype),
    logKernel: filled([SEQUENCES], dtype),
  }),
  badOptions: { ...BAD_PREFERENCE_OPTIONS, bcoCount: NOT_FINITE },
  special: [
    ...REFUSED_TOGETHER.map(({ title, options, names }) => ({
      title,
      change: (args: Args) => void Object.assign(args, options),
      codes: ["ERR_RANGE"] as const,
      names,
    })),
    {
      title: "two weights for one loss",
      change: (args) => void Object.assign(args, { lossWeights: [1, 2] }),
      codes: ["ERR_SHAPE"],
      names: ["lossWeights"],
    },
    { title: "no reference", change: (args) => void delete args.reference, codes: ["ERR_SHAPE"], names: ["reference"] },
    { title: "gamma without logKernel", change: (args) => void delete args.logKernel, codes: ["ERR_SHAPE"], names: ["logKernel"] },
    {
      title: "ipo without token counts",
      change: (args) => {
        delete args.tokenCounts;
        args.loss = "ipo";
      },
      codes: ["ERR_SHAPE"],
      names: ["tokenCounts"],
    },
    {
      title: "weights with aot",
      change: (args) => {
        args.loss = "aot";
      },
      codes: ["ERR_RANGE"],
      names: ["weights"],
    },
  ],
  ...faces(preferenceLossSync, preferenceLoss),
};

const REDUCTIONS = ["median", "", "toString", 1, Number.NaN];
const BAD_DIVERGENCES: readonly SpecialCase[] = (
  [
    ["no kind", undefined],
    ["a kind that is a name", "kl"],
    ["a kind without anything", {}],
    ["a kind of an unknown name", { name: "cosine" }],
    ["a kind without its parameter", { name: "renyi" }],
    ["a kind with a parameter out of range", { name: "renyi", alpha: 0 }],
    ["a kind with a parameter that is not its own", { name: "kl", alpha: 2 }],
  ] as const
).map(([title, kind]) => ({
  title,
  change: (args) => void Object.assign(args, { kind }),
  codes: ["ERR_DTYPE", "ERR_RANGE"],
  names: ["divergence", "name", "renyi", "kl"],
}));

const DIVERGENCE_ROW_RULES: Record<string, InputRules> = {
  targets: { ...TARGET_RULES, optional: true },
  targetUpstream: { ...ROW_RULES, optional: true },
};

/** upstream has no rules: it may be a number, which no tensor may. */
const BAD_UPSTREAMS: readonly SpecialCase[] = (
  [
    ["that is a text", "ERR_DTYPE", () => "logits"],
    ["that is a list", "ERR_DTYPE", () => [1, 2, 3]],
    ["that is NaN", "ERR_NONFINITE", () => Number.NaN],
    ["that is infinite", "ERR_NONFINITE", () => Infinity],
    ["of too few rows", "ERR_SHAPE", () => filled([TOKENS - 1], "f32")],
    ["of two axes", "ERR_SHAPE", () => filled([1, TOKENS], "f32")],
    ["that is empty", "ERR_SHAPE", () => new Float32Array(0)],
    ["of integers", "ERR_DTYPE", () => filled([TOKENS], "i32")],
    ["of 16 bits", "ERR_DTYPE", () => filled([TOKENS], "bf16")],
    [
      "disposed of",
      "ERR_DISPOSED",
      () => {
        const gone = filled([TOKENS], "f32");
        gone.dispose();
        return gone;
      },
    ],
  ] as const
).map(([title, code, make]) => ({
  title: `an upstream ${title}`,
  change: (args) => void Object.assign(args, { upstream: make() }),
  codes: [code],
  names: ["upstream"],
}));
const TARGET_UPSTREAM_ALONE: readonly SpecialCase[] = (["targets", "upstream"] as const).map((missing) => ({
  title: `targetUpstream without ${missing}`,
  change: (args) => void delete args[missing],
  codes: ["ERR_SHAPE"],
  names: ["targetUpstream"],
}));
const UPSTREAM_OF_ONE_VALUE: SpecialCase = {
  title: "an upstream by row for one value",
  change: (args) => void Object.assign(args, { reduction: "mean" }),
  codes: ["ERR_DTYPE", "ERR_SHAPE"],
  names: ["upstream"],
};

const divergenceRows = (dtype: Storage): Args => ({ targets: targets(), upstream: rows(dtype), targetUpstream: rows(dtype) });

const divergenceCase: OperationCase = {
  name: "divergence",
  needs: ["divergence", "densityRatios"],
  dtypes: ALL_TYPES,
  args: (dtype) => ({
    policy: logits(dtype),
    reference: floats(createRandom(7), [TOKENS, WORDS], dtype),
    kind: divergences.js(),
    ...divergenceRows(dtype),
  }),
  inputs: {
    policy: {
      ...LOGIT_RULES,
      badDTypes: ["i32", "f64", "bf16"],
      badShapes: [
        { shape: [TOKENS * WORDS] },
        { shape: [TOKENS, WORDS, 1] },
        { shape: [TOKENS - 1, WORDS], names: ["reference", "targets"] },
        { shape: [TOKENS, WORDS + 1], names: ["reference"] },
      ],
      alias: "reference", // of two dtypes either may be the wrong one
    },
    reference: {
      ...LOGIT_RULES,
      badDTypes: ["i32", "f64", "bf16"],
      badShapes: [{ shape: [TOKENS * WORDS] }, { shape: [TOKENS, WORDS, 1] }, { shape: [TOKENS - 1, WORDS] }, { shape: [TOKENS, WORDS + 1] }],
    },
    ...DIVERGENCE_ROW_RULES,
  },
  outs: (dtype) => ({ values: filled([TOKENS], wide(dtype)), gradPolicy: filled([TOKENS, WORDS], dtype) }),
  badOptions: { ...LOGIT_OPTIONS, reduction: REDUCTIONS },
  special: [
    minusInfinityRow("policy"),
    minusInfinityRow("reference"),
    ...BAD_DIVERGENCES,
    ...BAD_UPSTREAMS,
    ...TARGET_UPSTREAM_ALONE,
    UPSTREAM_OF_ONE_VALUE,
  ],
  ...faces(divergenceSync, divergence),
};

const ownDivergenceCase: OperationCase = {
  ...divergenceCase,
  name: "divergence of the caller's own generator",
  args: (dtype) => ({
    ...divergenceCase.args(dtype),
    kind: divergences.f({ f: (ratio) => (ratio - 1) ** 2, derivative: (ratio) => 2 * (ratio - 1) }),
  }),
};

const linearDivergenceCase: OperationCase = {
  name: "linearDivergence",
  dtypes: ALL_TYPES,
  args: (dtype) => {
    const r = createRandom(7);
    const reference = {
      hidden: floats(r, [TOKENS, WIDTH + 1], dtype),
      weight: floats(r, [WORDS, WIDTH + 1], dtype),
      bias: floats(r, [WORDS], dtype),
    };
    return { policy: head(dtype), reference, kind: divergences.kl(), ...divergenceRows(dtype) };
  },
  inputs: {
    ...under("policy", {
      ...HEAD_RULES,
      hidden: {
        ...(HEAD_RULES.hidden as InputRules),
        badShapes: [
          { shape: [TOKENS * WIDTH] },
          { shape: [TOKENS, WIDTH, 1] },
          { shape: [TOKENS - 1, WIDTH], names: ["reference.hidden", "targets"] },
          { shape: [TOKENS, WIDTH + 1], names: ["weight"] },
        ],
      },
    }),
    ...under("reference", {
      hidden: {
        ...(HEAD_RULES.hidden as InputRules),
        badDTypes: ["i32", "f64", "bf16"],
        badShapes: [{ shape: [TOKENS * (WIDTH + 1)] }, { shape: [TOKENS - 1, WIDTH + 1] }, { shape: [TOKENS, WIDTH], names: ["weight"] }],
        alias: "weight",
      },
      weight: {
        ...(HEAD_RULES.weight as InputRules),
        badShapes: [{ shape: [WORDS * (WIDTH + 1)] }, { shape: [WORDS, WIDTH] }, { shape: [WORDS + 1, WIDTH + 1], names: ["bias"] }],
      },
      bias: HEAD_RULES.bias as InputRules,
    }),
    ...DIVERGENCE_ROW_RULES,
  },
  outs: (dtype) => ({ values: filled([TOKENS], wide(dtype)), ...headOuts(dtype) }),
  badOptions: { ...LOGIT_OPTIONS, reduction: REDUCTIONS, memoryLimit: NOT_A_LIMIT },
  special: [
    ...BAD_DIVERGENCES,
    ...BAD_UPSTREAMS,
    ...TARGET_UPSTREAM_ALONE,
    UPSTREAM_OF_ONE_VALUE,
    {
      title: "a generator of the caller's own",
      change: (args) => void Object.assign(args, { kind: divergences.f({ f: (ratio) => ratio ** 2, derivative: (ratio) => 2 * ratio }) }),
      codes: ["ERR_RANGE"],
      names: ["generator", "kind"],
    },
    ...["policy", "reference"].flatMap((side) =>
      [undefined, null, 5, "head"].map(
        (given): SpecialCase => ({
          title: `${side} ${String(given)}`,
          change: (args) => void Object.assign(args, { [side]: given }),
          codes: ["ERR_SHAPE", "ERR_DTYPE"],
          names: [side],
        }),
      ),
    ),
  ],
  ...faces(linearDivergenceSync, linearDivergence),
};

/** Renames what depends on where the objective keeps an argument. */
function under(prefix: string, rules: Record<string, InputRules>): Record<string, InputRules> {
  return Object.fromEntries(Object.entries(rules).map(([name, rule]) => [`${prefix}.${name}`, rule]));
}

const EMBEDDING_RULES = ((): Record<string, InputRules> => {
  const rules = (names: readonly string[]): InputRules => ({
    holds: "numbers",
    badDTypes: ["i32"],
    badShapes: [{ shape: [PAIRS * WIDTH] }, { shape: [PAIRS, WIDTH, 1] }, { shape: [PAIRS + 1, WIDTH], names }, { shape: [PAIRS, WIDTH + 1], names }],
  });
  return {
    prompt: rules(["chosen", "rejected"]),
    chosen: { ...rules([]), badDTypes: ["i32", "f64", "bf16"] },
    rejected: { ...rules([]), badDTypes: ["i32", "f64", "bf16"] },
  };
})();

interface ObjectiveForm {
  readonly name: string;
  readonly options?: ObjectiveOptions;
  /** Its state cannot be had: JSON holds no functions. */
  readonly stateless?: true;
  readonly dtypes: readonly Storage[];
  policy(dtype: Storage): Args;
  reference(dtype: Storage): Args;
  readonly policyRules: Record<string, InputRules>;
  readonly referenceRules: Record<string, InputRules>;
  policyOuts(dtype: Storage): Record<string, Tensor>;
  readonly special?: readonly SpecialCase[];
}

function embeddings(dtype: Storage): Args {
  const r = random();
  const one = () => floats(r, [PAIRS, WIDTH], dtype);
  return { prompt: one(), chosen: one(), rejected: one() };
}

const MISSING_PARTS: readonly SpecialCase[] = [
  ...[undefined, null, 5, "logits", {}].map((policy) => ({
    title: `policy ${JSON.stringify(policy)}`,
    change: (args: Args) => void Object.assign(args, { policy }),
    codes: ["ERR_SHAPE", "ERR_DTYPE"] as const,
    names: ["policy", "logProbs", "targets"],
  })),
  ...[null, 5, {}].map((reference) => ({
    title: `reference ${JSON.stringify(reference)}`,
    change: (args: Args) => void Object.assign(args, { reference }),
    codes: ["ERR_SHAPE", "ERR_DTYPE"] as const,
    names: ["reference", "logProbs"],
  })),
  { title: "no reference", change: (args) => void delete args.reference, codes: ["ERR_SHAPE"], names: ["reference"] },
  { title: "no embeddings", change: (args) => void delete args.embeddings, codes: ["ERR_SHAPE"], names: ["embeddings"] },
  ...[null, 5, {}].map((given) => ({
    title: `embeddings ${JSON.stringify(given)}`,
    change: (args: Args) => void Object.assign(args, { embeddings: given }),
    codes: ["ERR_SHAPE", "ERR_DTYPE"] as const,
    names: ["embeddings", "prompt"],
  })),
  {
    title: "embeddings of more pairs than the policy's",
    change: (args) => {
      const r = random();
      const one = () => floats(r, [PAIRS + 1, WIDTH], "f32");
      args.embeddings = { prompt: one(), chosen: one(), rejected: one() };
    },
    codes: ["ERR_SHAPE"],
    names: ["embeddings", "prompt", "chosen"],
  },
  zeroRow(["embeddings", "prompt"]),
  zeroRow(["embeddings", "chosen"]),
  zeroRow(["embeddings", "rejected"]),
];

function objectiveCase(form: ObjectiveForm): OperationCase {
  const objective = new DpoKernels({ loss: ["sigmoid", "ipo"], kernel: kernels.rbf({ sigma: 0.8 }), gamma: 0.25, ...form.options });
  return {
    name: `DpoKernels, ${form.name}`,
    dtypes: form.dtypes,
    args: (dtype) => ({
      policy: form.policy(dtype),
      reference: form.reference(dtype),
      embeddings: embeddings(dtype),
      weights: floats(random(), [PAIRS], "f64", 0.5, 2),
    }),
    inputs: {
      ...under("policy", form.policyRules),
      ...under("reference", form.referenceRules),
      ...under("embeddings", EMBEDDING_RULES),
      weights: { ...vectorRules(PAIRS, ["i32", "f32", "f16"]), optional: true },
    },
    outs: (dtype) => {
      const policy = Object.entries(form.policyOuts(dtype)).map(([name, tensor]) => [`policy.${name}`, tensor] as const);
      const sides = ["prompt", "chosen", "rejected"].map((side) => [`embeddings.${side}`, filled([PAIRS, WIDTH], dtype)] as const);
      return Object.fromEntries([...policy, ...sides]);
    },
    badOptions: {},
    special: [...MISSING_PARTS, ...(form.special ?? [])],
    sync: (args, out) => objective.lossAndGradSync(args as unknown as ObjectiveInputs, { out } as StepOut),
    async: (args, out, signal) =>
      objective.lossAndGrad(args as unknown as ObjectiveInputs, { out, ...(signal && { signal }) } as StepOut & { signal?: AbortSignal }),
    ...(!form.stateless && { state: () => objective.state() }),
  };
}

const SEQUENCE_POLICY_RULES: Record<string, InputRules> = {
  logProbs: {
    ...leadingVectorRules(SEQUENCES, ["policy", "reference", "tokenCounts"], ["i32", "f16", "bf16"]),
    alias: "policy",
  },
  tokenCounts: { ...vectorRules(SEQUENCES, ["i32", "f32", "bf16"]), optional: true },
};
const SEQUENCE_REFERENCE_RULES: Record<string, InputRules> = {
  logProbs: { ...vectorRules(SEQUENCES, ["i32", "f16", "bf16"]), alias: "reference" },
};
const PACKED_RULES: Record<string, InputRules> = { targets: TARGET_RULES, offsets: OFFSET_RULES };
const PADDED_LENGTH = TOKENS / SEQUENCES;
const PADDED_TARGET_RULES: InputRules = {
  holds: "targets",
  badDTypes: ["f32", "f64", "f16"],
  badShapes: [{ shape: [TOKENS - 1] }, { shape: [PADDED_LENGTH, SEQUENCES] }, { shape: [SEQUENCES, PADDED_LENGTH + 1] }],
};

const sequenceReference = (dtype: Storage): Args => ({ logProbs: floats(random(), [SEQUENCES], wide(dtype), -9, -1) });

/** Rules of a reference that must match the policy. */
function ofReference(rules: InputRules, ...badShapes: readonly BadShape[]): InputRules {
  return { ...rules, alias: "reference", badDTypes: ["i32", "f64"], badShapes: [...rules.badShapes.slice(0, 1), ...badShapes] };
}

const PACKED_LOGITS_FORM = {
  dtypes: ALL_TYPES,
  policy: (dtype: Storage): Args => ({ logits: logits(dtype), targets: targets(), offsets: offsets() }),
  reference: (dtype: Storage): Args => ({ logits: floats(createRandom(7), [TOKENS, WORDS], dtype) }),
  policyRules: {
    logits: { ...LOGIT_RULES, badShapes: [{ shape: [TOKENS * WORDS] }, { shape: [TOKENS - 1, WORDS], names: ["targets"] }] },
    ...PACKED_RULES,
  },
  referenceRules: { logits: { ...LOGIT_RULES, badShapes: [{ shape: [TOKENS * WORDS] }, { shape: [TOKENS - 1, WORDS], names: ["targets"] }] } },
  policyOuts: (dtype: Storage) => ({ logits: filled([TOKENS, WORDS], dtype) }),
  special: [
    minusInfinityRow("policy.logits"),
    {
      title: "no offsets",
      change: (args: Args) => void delete (args.policy as Args).offsets,
      codes: ["ERR_SHAPE"] as const,
      names: ["offsets"],
    },
    {
      title: "no targets",
      change: (args: Args) => void delete (args.policy as Args).targets,
      codes: ["ERR_SHAPE"] as const,
      names: ["targets"],
    },
  ],
};

const HIDDEN_FORM = {
  dtypes: ALL_TYPES,
  policy: (dtype: Storage): Args => ({ ...head(dtype), targets: targets(), offsets: offsets() }),
  reference: (dtype: Storage): Args => ({ hidden: floats(createRandom(7), [TOKENS, WIDTH], dtype), weight: head(dtype).weight }),
  policyRules: { ...HEAD_RULES, ...PACKED_RULES },
  referenceRules: {
    hidden: { ...(HEAD_RULES.hidden as InputRules), badShapes: [{ shape: [TOKENS * WIDTH] }, { shape: [TOKENS, WIDTH + 1], names: ["weight"] }] },
    weight: { ...(HEAD_RULES.weight as InputRules), badShapes: [{ shape: [WORDS * WIDTH] }, { shape: [WORDS, WIDTH + 1] }] },
  },
  policyOuts: headOuts,
};

const OBJECTIVE_CASES = [
  objectiveCase({
    name: "log-probabilities",
    dtypes: ARITHMETIC,
    policy: (dtype) => ({ logProbs: floats(random(), [SEQUENCES], dtype, -9, -1), tokenCounts: floats(random(), [SEQUENCES], "f64", 1, 9) }),
    reference: sequenceReference,
    policyRules: SEQUENCE_POLICY_RULES,
    referenceRules: SEQUENCE_REFERENCE_RULES,
    policyOuts: (dtype) => ({ logProbs: filled([SEQUENCES], dtype) }),
  }),
  objectiveCase({ name: "packed logits", ...PACKED_LOGITS_FORM }),
  objectiveCase({
    name: "logits and a divergence",
    options: { divergence: divergences.js(), alpha: 0.3 },
    ...PACKED_LOGITS_FORM,
    referenceRules: { logits: ofReference(LOGIT_RULES, { shape: [TOKENS - 1, WORDS], names: ["targets"] }, { shape: [TOKENS, WORDS + 1] }) },
  }),
  objectiveCase({
    name: "logits and an own divergence",
    stateless: true,
    options: { divergence: divergences.f({ f: (ratio) => (ratio - 1) ** 2, derivative: (ratio) => 2 * (ratio - 1) }), alpha: 0.3 },
    ...PACKED_LOGITS_FORM,
  }),
  objectiveCase({
    name: "padded logits",
    dtypes: ["f32"],
    policy: (dtype) => ({
      logits: floats(random(), [SEQUENCES, PADDED_LENGTH, WORDS], dtype),
      targets: integers(TARGETS, [SEQUENCES, PADDED_LENGTH]),
    }),
    reference: sequenceReference,
    policyRules: {
      logits: {
        holds: "logits",
        badDTypes: ["i32"],
        badShapes: [
          { shape: [TOKENS, WORDS], names: ["offsets", "targets"] },
          { shape: [SEQUENCES - 1, PADDED_LENGTH, WORDS], names: ["targets"] },
          { shape: [SEQUENCES, PADDED_LENGTH, WORDS, 1] },
        ],
      },
      targets: PADDED_TARGET_RULES,
    },
    referenceRules: SEQUENCE_REFERENCE_RULES,
    policyOuts: (dtype) => ({ logits: filled([SEQUENCES, PADDED_LENGTH, WORDS], dtype) }),
    special: [
      {
        title: "offsets given too",
        change: (args) => void Object.assign(args.policy as Args, { offsets: offsets() }),
        codes: ["ERR_SHAPE"],
        names: ["offsets"],
      },
    ],
  }),
  objectiveCase({ name: "hidden states, pair by pair", ...HIDDEN_FORM }),
  objectiveCase({ name: "hidden states, in passes", options: { memoryLimit: 64 }, ...HIDDEN_FORM }),
  objectiveCase({ name: "hidden states and a divergence", options: { divergence: divergences.kl(), alpha: 0.3, contrast: true }, ...HIDDEN_FORM }),
];

const GRAM_ROWS = 4;
const GRAM_COLUMNS = 5;
const GRAM_RULES: Record<string, InputRules> = {
  x: {
    holds: "numbers",
    badDTypes: ["i32"],
    badShapes: [{ shape: [GRAM_ROWS * WIDTH] }, { shape: [GRAM_ROWS, WIDTH, 1] }, { shape: [GRAM_ROWS, WIDTH + 1], names: ["y"] }],
  },
  y: {
    holds: "numbers",
    badDTypes: ["i32", "f64", "bf16"],
    badShapes: [{ shape: [GRAM_COLUMNS * WIDTH] }, { shape: [GRAM_COLUMNS, WIDTH, 1] }, { shape: [GRAM_COLUMNS, WIDTH + 1] }],
    optional: true,
  },
};
const GRAM_OPTIONS = { accuracy: ["fast", 1, Number.NaN, null] };
const BAD_GRAM_ROWS: readonly SpecialCase[] = [
  ...badKernels((args, kernel) => {
    args.kernel = kernel;
  }),
  zeroRow(["x"]),
  zeroRow(["y"]),
];

function gramArgs(dtype: Storage): Args {
  const r = random();
  return { x: floats(r, [GRAM_ROWS, WIDTH], dtype), y: floats(r, [GRAM_COLUMNS, WIDTH], dtype), kernel: kernels.rbf({ sigma: 0.8 }) };
}

const gramCase: OperationCase = {
  name: "gram",
  dtypes: ALL_TYPES,
  args: gramArgs,
  inputs: GRAM_RULES,
  outs: (dtype) => ({ gram: filled([GRAM_ROWS, GRAM_COLUMNS], wide(dtype)) }),
  badOptions: GRAM_OPTIONS,
  special: BAD_GRAM_ROWS,
  ...faces(gramSync, gram),
};

function rowOutsOf(dtype: Storage): Record<string, Tensor> {
  return { x: filled([GRAM_ROWS, WIDTH], dtype), y: filled([GRAM_COLUMNS, WIDTH], dtype) };
}

const gramVjpCase: OperationCase = {
  ...gramCase,
  name: "gramVjp",
  args: (dtype) => {
    const args = gramArgs(dtype);
    return { ...args, upstream: floats(random(), [GRAM_ROWS, GRAM_COLUMNS], wide(dtype)), gram: gramSync(args as never) };
  },
  inputs: {
    ...GRAM_RULES,
    gram: {
      holds: "numbers",
      optional: true,
      badDTypes: ["i32", "f16", "bf16"],
      badShapes: [{ shape: [GRAM_ROWS * GRAM_COLUMNS] }, { shape: [GRAM_COLUMNS, GRAM_ROWS] }],
    },
    upstream: {
      holds: "numbers",
      badDTypes: ["i32", "f16", "bf16"],
      badShapes: [{ shape: [GRAM_ROWS * GRAM_COLUMNS] }, { shape: [GRAM_COLUMNS, GRAM_ROWS] }],
    },
  },
  outs: rowOutsOf,
  ...faces(gramVjpSync, gramVjp),
};

const COLUMN_RULES: InputRules = {
  holds: "numbers",
  badDTypes: ["i32", "f16", "bf16"],
  badShapes: [
    { shape: [GRAM_COLUMNS + 1, 2], names: ["upstream"] },
    { shape: [2], names: ["upstream", "sums"] },
    { shape: [GRAM_COLUMNS, 2, 1], names: ["upstream"] },
  ],
};

const gramReduceCase: OperationCase = {
  ...gramCase,
  name: "gramReduce",
  args: (dtype) => ({ ...gramArgs(dtype), vectors: floats(random(), [GRAM_COLUMNS, 2], wide(dtype)) }),
  inputs: { ...GRAM_RULES, vectors: COLUMN_RULES },
  outs: (dtype) => ({ sums: filled([GRAM_ROWS, 2], wide(dtype)) }),
  ...faces(gramReduceSync, gramReduce),
};

const gramReduceVjpCase: OperationCase = {
  ...gramCase,
  name: "gramReduceVjp",
  args: (dtype) => ({
    ...gramArgs(dtype),
    vectors: floats(random(), [GRAM_COLUMNS, 2], wide(dtype)),
    upstream: floats(random(), [GRAM_ROWS, 2], wide(dtype)),
  }),
  inputs: {
    ...GRAM_RULES,
    vectors: COLUMN_RULES,
    upstream: { holds: "numbers", badDTypes: ["i32", "f16", "bf16"], badShapes: [{ shape: [GRAM_ROWS + 1, 2] }, { shape: [GRAM_ROWS] }] },
  },
  outs: (dtype) => ({ ...rowOutsOf(dtype), vectors: filled([GRAM_COLUMNS, 2], wide(dtype)) }),
  ...faces(gramReduceVjpSync, gramReduceVjp),
};

const { optional: _optional, ...MMD_Y_RULES } = GRAM_RULES.y as InputRules;

const mmdCase: OperationCase = {
  ...gramCase,
  name: "mmd",
  args: (dtype) => ({ ...gramArgs(dtype), gradients: true }),
  inputs: { x: GRAM_RULES.x as InputRules, y: MMD_Y_RULES },
  outs: rowOutsOf,
  badOptions: { ...GRAM_OPTIONS, estimator: ["plug-in", 1, null], gradients: ["yes", 1, null] },
  special: [
    ...BAD_GRAM_ROWS,
    {
      title: "an unbiased estimate from one row",
      change: (args) => Object.assign(args, { x: (args.x as Tensor).rows(0, 1), estimator: "unbiased" }),
      codes: ["ERR_SHAPE"],
      names: ["x"],
    },
  ],
  ...faces(mmdSync, mmd),
};

const MATRIX = 3;
const ARITHMETIC_ONLY: readonly DType[] = ["i32", "f16", "bf16"];

/** [MATRIX, MATRIX]; `names` are those of which another extent may be reported. */
function squareRules(names: readonly string[] = [], badDTypes: readonly DType[] = ARITHMETIC_ONLY): InputRules {
  return {
    holds: "numbers",
    badDTypes,
    badShapes: [
      { shape: [MATRIX * MATRIX] },
      { shape: [MATRIX, MATRIX, 1] },
      { shape: [MATRIX, MATRIX + 1], names },
      { shape: [MATRIX + 1, MATRIX], names },
      { shape: [MATRIX + 1, MATRIX + 1], names: ["out", ...names] },
    ],
  };
}

function systemRules(names: readonly string[] = [], badDTypes: readonly DType[] = ["i32", "f64", "bf16"]): InputRules {
  return {
    holds: "numbers",
    badDTypes,
    badShapes: [
      { shape: [MATRIX], names: ["x", "upstream", ...names] },
      { shape: [MATRIX + 1, 2], names },
      { shape: [MATRIX, 2, 1] },
      { shape: [MATRIX, 3], names: ["x", "upstream"] },
    ],
  };
}

/** Symmetric, and diagonally dominant. */
function definiteMatrix(dtype: Storage): Tensor {
  return tensorOf([4, 1, -0.5, 1, 3, 0.25, -0.5, 0.25, 2], [MATRIX, MATRIX], dtype);
}

const squareOut = (dtype: Storage) => filled([MATRIX, MATRIX], dtype);
const anyMatrix = (dtype: Storage, columns = MATRIX) => floats(random(), [MATRIX, columns], dtype);

function zeroDiagonal(name: string): SpecialCase {
  return {
    title: `${name} with a zero on its diagonal`,
    change: (args) => void (args[name] as Tensor).data.fill(0, MATRIX + 1, MATRIX + 2),
    codes: ["ERR_RANGE"],
    names: [name],
    index: MATRIX + 1,
  };
}

const covarianceCase: OperationCase = {
  name: "covariance",
  needs: ["covariance"],
  dtypes: ALL_TYPES,
  args: (dtype) => ({ x: floats(random(), [7, 6], dtype), method: "oas" }),
  inputs: { x: { holds: "numbers", badDTypes: ["i32"], badShapes: [{ shape: [42] }, { shape: [7, 6, 1] }] } },
  outs: () => ({ covariance: filled([6, 6], "f64") }),
  badOptions: { method: ["mean", 1, null], assumeCentered: [1, "yes", null] },
  special: [],
  ...faces(covarianceSync, covariance),
};

const choleskyCase: OperationCase = {
  name: "cholesky",
  needs: ["cholesky"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ a: definiteMatrix(dtype) }),
  inputs: { a: squareRules() },
  outs: (dtype) => ({ factor: squareOut(dtype) }),
  badOptions: { jitter: NOT_NON_NEGATIVE },
  special: [
    {
      title: "a that is indefinite",
      change: (args) => void (args.a as Tensor).data.fill(-1, MATRIX + 1, MATRIX + 2),
      codes: ["ERR_NOT_PSD"],
      names: ["a"],
    },
  ],
  ...faces(choleskySync, cholesky),
};

const choleskyVjpCase: OperationCase = {
  name: "choleskyVjp",
  needs: ["cholesky", "choleskyVjp"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ factor: choleskySync({ a: definiteMatrix(dtype) }).factor, upstream: anyMatrix(dtype) }),
  inputs: { factor: squareRules(["upstream"]), upstream: squareRules([], ["i32", "f64", "bf16"]) },
  outs: (dtype) => ({ a: squareOut(dtype) }),
  badOptions: {},
  special: [zeroDiagonal("factor")],
  ...faces(choleskyVjpSync, choleskyVjp),
};

const TRIANGULAR_OPTIONS = { lower: [1, "yes", null], transpose: [0, "no", null] };

const solveTriangularCase: OperationCase = {
  name: "solveTriangular",
  needs: ["solveTriangular"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ a: definiteMatrix(dtype), b: anyMatrix(dtype, 2) }),
  inputs: { a: squareRules(["b"]), b: systemRules() },
  outs: (dtype) => ({ x: filled([MATRIX, 2], dtype) }),
  badOptions: TRIANGULAR_OPTIONS,
  special: [zeroDiagonal("a")],
  ...faces(solveTriangularSync, solveTriangular),
};

const solveTriangularVjpCase: OperationCase = {
  name: "solveTriangularVjp",
  needs: ["solveTriangularVjp"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ a: definiteMatrix(dtype), x: anyMatrix(dtype, 2), upstream: anyMatrix(dtype, 2) }),
  inputs: { a: squareRules(["x"]), x: systemRules(["upstream"]), upstream: systemRules() },
  outs: (dtype) => ({ a: squareOut(dtype), b: filled([MATRIX, 2], dtype) }),
  badOptions: TRIANGULAR_OPTIONS,
  special: [zeroDiagonal("a")],
  ...faces(solveTriangularVjpSync, solveTriangularVjp),
};

const eighOuts = (dtype: Storage) => ({ values: filled([MATRIX], dtype), vectors: squareOut(dtype) });

const eighCase: OperationCase = {
  name: "eigh",
  needs: ["eigh"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({ a: definiteMatrix(dtype) }),
  inputs: { a: squareRules() },
  outs: eighOuts,
  badOptions: {},
  special: [],
  ...faces(eighSync, eigh),
};

const eighVjpCase: OperationCase = {
  name: "eighVjp",
  needs: ["eigh", "eighVjp"],
  dtypes: ARITHMETIC,
  args: (dtype) => ({
    ...eighSync({ a: definiteMatrix(dtype) }),
    upstream: { values: floats(random(), [MATRIX], dtype), vectors: anyMatrix(dtype) },
  }),
  inputs: {
    values: vectorRules(MATRIX, ["i32", "f64", "bf16"]),
    vectors: squareRules(["values"]),
    "upstream.values": { ...vectorRules(MATRIX, ["i32", "f64", "bf16"]), optional: true },
    "upstream.vectors": { ...squareRules([], ["i32", "f64", "bf16"]), optional: true },
  },
  outs: (dtype) => ({ a: squareOut(dtype) }),
  badOptions: {},
  special: [undefined, null, 5, {}].map((upstream) => ({
    title: `upstream ${JSON.stringify(upstream)}`,
    change: (args) => void Object.assign(args, { upstream }),
    codes: ["ERR_SHAPE"],
    names: ["upstream"],
  })),
  ...faces(eighVjpSync, eighVjp),
};

const SAMPLES = 6;
const LANDMARKS = 3;

/** The numbers of the features, which are an object of their own. */
function partsOf({ landmarks, eigenvalues, projection }: NystromFeatures): object {
  return { landmarks, eigenvalues, projection };
}

const nystromCase: OperationCase = {
  name: "nystrom",
  dtypes: ALL_TYPES,
  args: (dtype) => ({ x: floats(random(), [SAMPLES, WIDTH], dtype), kernel: kernels.rbf({ sigma: 0.8 }), landmarks: LANDMARKS, method: "leverage" }),
  inputs: { x: { holds: "numbers", badDTypes: ["i32"], badShapes: [{ shape: [SAMPLES * WIDTH] }, { shape: [SAMPLES, WIDTH, 1] }] } },
  outs: () => ({}),
  badOptions: {
    landmarks: [Number.NaN, 0, -1, 1.5, SAMPLES + 1, undefined, ...NOT_A_NUMBER_OPTION],
    rank: [Number.NaN, 0, -1, 1.5, LANDMARKS + 1, ...NOT_A_NUMBER_OPTION],
    seed: [Number.NaN, -1, 1.5, 2 ** 53, ...NOT_A_NUMBER_OPTION],
    method: ["random", "toString", 1, null],
  },
  special: [
    ...badKernels((args, kernel) => {
      args.kernel = kernel;
    }),
    zeroRow(["x"]),
    {
      title: "a kernel that is still to be fitted",
      change: (args) => void Object.assign(args, { kernel: kernels.rbf({ sigma: "median" }) }),
      codes: ["ERR_RANGE"],
      names: ["kernel"],
    },
  ],
  sync: (args) => partsOf(nystromSync(args as never)),
  async: async (args, _, signal) => partsOf(await nystrom(args as never, signal && { signal })),
};

const nystromFeatures = nystromSync({ x: floats(random(), [SAMPLES, WIDTH], "f64"), kernel: kernels.rbf({ sigma: 0.8 }), landmarks: LANDMARKS });
const ROWS_OF_FEATURES: InputRules = {
  holds: "numbers",
  badDTypes: ARITHMETIC_ONLY,
  badShapes: [{ shape: [SAMPLES * WIDTH] }, { shape: [SAMPLES, WIDTH, 1] }, { shape: [SAMPLES, WIDTH + 1] }],
};

const nystromTransformCase: OperationCase = {
  name: "NystromFeatures.transform",
  dtypes: ARITHMETIC,
  args: (dtype) => ({ x: floats(random(), [SAMPLES, WIDTH], dtype) }),
  inputs: { x: ROWS_OF_FEATURES },
  outs: (dtype) => ({ features: filled([SAMPLES, LANDMARKS], dtype) }),
  badOptions: {},
  special: [zeroRow(["x"])],
  sync: ({ x }, out) => nystromFeatures.transformSync(x as never, { out }),
  async: ({ x }, out, signal) => nystromFeatures.transform(x as never, { out, ...(signal && { signal }) }),
};

const nystromTransformVjpCase: OperationCase = {
  ...nystromTransformCase,
  name: "NystromFeatures.transformVjp",
  args: (dtype) => ({ x: floats(random(), [SAMPLES, WIDTH], dtype), upstream: floats(random(), [SAMPLES, LANDMARKS], dtype) }),
  inputs: {
    x: ROWS_OF_FEATURES,
    upstream: {
      holds: "numbers",
      badDTypes: ARITHMETIC_ONLY,
      badShapes: [{ shape: [SAMPLES] }, { shape: [SAMPLES + 1, LANDMARKS] }, { shape: [SAMPLES, LANDMARKS + 1] }, { shape: [SAMPLES, LANDMARKS, 1] }],
    },
  },
  outs: (dtype) => ({ x: filled([SAMPLES, WIDTH], dtype) }),
  sync: (args, out) => nystromFeatures.transformVjpSync(args as never, { out }),
  async: (args, out, signal) => nystromFeatures.transformVjp(args as never, { out, ...(signal && { signal }) }),
};

const FREQUENCIES = 3;

const randomFeaturesCase: OperationCase = {
  name: "randomFeatures",
  needs: ["randomFrequencies"],
  dtypes: ["f64"],
  args: () => ({ kernel: kernels.rbf({ sigma: 0.8 }), frequencies: FREQUENCIES, depth: WIDTH }),
  inputs: {},
  outs: () => ({}),
  badOptions: {
    frequencies: [Number.NaN, 0, -1, 1.5, undefined, ...NOT_A_NUMBER_OPTION],
    depth: [Number.NaN, 0, -1, 1.5, undefined, ...NOT_A_NUMBER_OPTION],
    seed: [Number.NaN, -1, 1.5, 2 ** 53, ...NOT_A_NUMBER_OPTION],
    orthogonal: [1, "yes", null],
  },
  special: [
    {
      title: "a kernel without random features",
      change: (args) => void Object.assign(args, { kernel: kernels.polynomial() }),
      codes: ["ERR_RANGE"],
      names: ["kernel"],
    },
  ],
  sync: (args) => ({ frequencies: randomFeaturesSync(args as never).frequencies }),
  async: async (args, _, signal) => ({ frequencies: (await randomFeatures(args as never, signal && { signal })).frequencies }),
};

const fourierFeatures = randomFeaturesSync({ kernel: kernels.rbf({ sigma: 0.8 }), frequencies: FREQUENCIES, depth: WIDTH });
const ROWS_OF_FOURIER_FEATURES: InputRules = { ...ROWS_OF_FEATURES, badDTypes: ["i32"] };

const fourierTransformCase: OperationCase = {
  name: "RandomFeatures.transform",
  needs: ["randomFeatures"],
  dtypes: ALL_TYPES,
  args: (dtype) => ({ x: floats(random(), [SAMPLES, WIDTH], dtype) }),
  inputs: { x: ROWS_OF_FOURIER_FEATURES },
  outs: (dtype) => ({ features: filled([SAMPLES, 2 * FREQUENCIES], wide(dtype)) }),
  badOptions: {},
  special: [zeroRow(["x"])],
  sync: ({ x }, out) => fourierFeatures.transformSync(x as never, { out }),
  async: ({ x }, out, signal) => fourierFeatures.transform(x as never, { out, ...(signal && { signal }) }),
};

const fourierTransformVjpCase: OperationCase = {
  ...fourierTransformCase,
  name: "RandomFeatures.transformVjp",
  needs: ["randomFeaturesVjp"],
  args: (dtype) => ({ x: floats(random(), [SAMPLES, WIDTH], dtype), upstream: floats(random(), [SAMPLES, 2 * FREQUENCIES], wide(dtype)) }),
  inputs: {
    x: ROWS_OF_FOURIER_FEATURES,
    upstream: {
      holds: "numbers",
      badDTypes: ["i32", "f16", "bf16"],
      badShapes: [
        { shape: [SAMPLES] },
        { shape: [SAMPLES + 1, 2 * FREQUENCIES] },
        { shape: [SAMPLES, FREQUENCIES] },
        { shape: [SAMPLES, 2 * FREQUENCIES, 1] },
      ],
    },
  },
  outs: (dtype) => ({ x: filled([SAMPLES, WIDTH], dtype), frequencies: filled([FREQUENCIES, WIDTH], "f64") }),
  sync: (args, out) => fourierFeatures.transformVjpSync(args as never, { out }),
  async: (args, out, signal) => fourierFeatures.transformVjp(args as never, { out, ...(signal && { signal }) }),
};

export const OPERATIONS: readonly OperationCase[] = [
  tokenLogProbsCase,
  tokenLogProbsVjpCase,
  withoutLogSumExp(tokenLogProbsVjpCase),
  linearTokenLogProbsCase,
  linearTokenLogProbsVjpCase,
  withoutLogSumExp(linearTokenLogProbsVjpCase),
  sequenceLogProbsCase,
  sequenceLogProbsVjpCase,
  pairKernelCase,
  pairKernelVjpCase,
  preferenceCase,
  divergenceCase,
  ownDivergenceCase,
  linearDivergenceCase,
  gramCase,
  gramVjpCase,
  gramReduceCase,
  gramReduceVjpCase,
  mmdCase,
  ...OBJECTIVE_CASES,
  covarianceCase,
  choleskyCase,
  choleskyVjpCase,
  solveTriangularCase,
  solveTriangularVjpCase,
  eighCase,
  eighVjpCase,
  nystromCase,
  randomFeaturesCase,
  fourierTransformCase,
  fourierTransformVjpCase,
  nystromTransformCase,
  nystromTransformVjpCase,
];

/** The value at a path of dots. */
export function valueAt(args: Args, path: string): unknown {
  return path.split(".").reduce<unknown>((at, key) => (at as Args)[key], args);
}

/** Sets the value at a path of dots, making the objects on the way where they are missing. */
export function setAt(args: Args, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop() ?? path;
  const holder = keys.reduce<Args>((at, key) => {
    at[key] ??= {};
    return at[key] as Args;
  }, args);
  holder[last] = value;
}

/** { "policy.hidden": t } as { policy: { hidden: t } }. */
export function nested(byPath: Readonly<Record<string, unknown>>): Args {
  const args: Args = {};
  for (const [path, value] of Object.entries(byPath)) setAt(args, path, value);
  return args;
}
