import { DataError, DTypeError, OutOfRangeError, ShapeError } from "../errors.js";
import { describe } from "../native/frame.js";
import { asTensor, Tensor } from "../tensor.js";

/** Those without a parameter. */
export interface PlainDivergence {
  readonly name: "kl" | "forward_kl" | "jeffreys" | "bhattacharyya" | "tv" | "chi2" | "neyman_chi2";
}

export interface AlphaDivergence {
  readonly name: "renyi" | "alpha" | "tsallis";
  readonly alpha: number;
}

export interface HellingerDivergence {
  readonly name: "hellinger";
  /** The Hellinger distance H instead of H². */
  readonly root: boolean;
}

export interface JsDivergence {
  readonly name: "js";
  readonly beta: number;
}

/** The f-divergences among the names. */
export const GENERATOR_NAMES = ["kl", "forward_kl", "jeffreys", "hellinger", "js", "tv", "chi2", "neyman_chi2", "alpha"] as const;
export type GeneratorName = (typeof GENERATOR_NAMES)[number];

/** Σ q·f(p/q) of a generator by name. */
export interface NamedGeneratorDivergence {
  readonly name: "f";
  readonly generator: GeneratorName;
  readonly alpha?: number;
  readonly beta?: number;
}

/** Σ q·f(p/q) of a generator of the caller's own. */
export interface OwnGeneratorDivergence {
  readonly name: "f";
  /** A convex function of the ratio p/q, from 0 to Infinity. */
  readonly f: (ratio: number) => number;
  /** Its derivative. At Infinity: the limit of f(r)/r, which may be Infinity. */
  readonly derivative: (ratio: number) => number;
}

/** Tokens on a line, in the order of the vocabulary. */
export interface OrderedWasserstein {
  readonly name: "wasserstein";
  readonly exponent: number;
}

/** How an optimal transport is found. */
export interface TransportOptions {
  /** "sinkhorn" (default): entropic, in the log domain. "exact": for a support of at most 1024 tokens. */
  readonly method?: "sinkhorn" | "exact";
  /** Entropic regularisation, in units of the cost. Default 0.05. */
  readonly epsilon?: number;
  /** Subtract half the cost of carrying each side to itself, so that D(p, p) = 0 (sinkhorn). Default false. */
  readonly debias?: boolean;
  /** Default 1000. */
  readonly maxIterations?: number;
  /** L1 error of the marginals at which the iteration ends. Default 1e-6. */
  readonly tolerance?: number;
}

/** Optimal transport between all tokens. */
export interface CostWasserstein extends Required<TransportOptions> {
  readonly name: "wasserstein";
  readonly cost: Tensor;
}

export type TransportMetric = (typeof TRANSPORT_METRICS)[number];

/** Optimal transport between the likeliest tokens of either row. */
export interface EmbeddingWasserstein extends Required<TransportOptions> {
  readonly name: "wasserstein";
  readonly embeddings: Tensor;
  readonly topK: number;
  readonly metric: TransportMetric;
}

/** A divergence D(p‖q) of policy and reference, as `divergences` makes it: plain data, but for a generator of the caller's own and tensors. */
export type Divergence =
  | PlainDivergence
  | AlphaDivergence
  | HellingerDivergence
  | JsDivergence
  | NamedGeneratorDivergence
  | OwnGeneratorDivergence
  | OrderedWasserstein
  | CostWasserstein
  | EmbeddingWasserstein;

export type DivergenceName = Divergence["name"];

/** In the order of TransportMethod and TransportMetric in native/math/transport_kinds.h. */
export const TRANSPORT_METHODS = ["sinkhorn", "exact"] as const;
export const TRANSPORT_METRICS = ["euclidean", "sqeuclidean", "cosine"] as const;

type Check = (name: string, value: unknown) => void;

function numberThat(holds: (value: number) => boolean, what: string): Check {
  return (name, value) => {
    if (typeof value !== "number" || !holds(value)) throw new OutOfRangeError(`${name}: expected ${what}, got ${describe(value)}`);
  };
}

const finite = numberThat(Number.isFinite, "a finite number");
const positive = numberThat((value) => Number.isFinite(value) && value > 0, "a finite number greater than 0");
const positiveOrInfinity = numberThat((value) => value > 0, "a number greater than 0, or Infinity");
const betweenZeroAndOne = numberThat((value) => value > 0 && value < 1, "a number greater than 0 and less than 1");
const atLeastOne = numberThat((value) => Number.isFinite(value) && value >= 1, "a finite number of at least 1");
const count = numberThat((value) => Number.isInteger(value) && value >= 1 && value < 2 ** 31, "a whole number of at least 1");

function flag(name: string, value: unknown): void {
  if (typeof value !== "boolean") throw new OutOfRangeError(`${name}: expected true or false, got ${describe(value)}`);
}

function oneOf(names: readonly string[]): Check {
  return (name, value) => {
    if (!names.includes(value as string)) throw new OutOfRangeError(`${name}: unknown name ${describe(value)}; known are ${names.join(", ")}`);
  };
}

function callable(name: string, value: unknown): void {
  if (typeof value !== "function") throw new DTypeError(`${name}: expected a function of the ratio p/q, got ${describe(value)}`);
}

function matrix(name: string, value: unknown): Tensor {
  const tensor = asTensor(name, value as Tensor);
  if (tensor.shape.length !== 2) throw new ShapeError(`${name}: expected a matrix, got shape [${tensor.shape.join(", ")}]`);
  return tensor;
}

function costMatrix(name: string, value: unknown): void {
  const { dtype, shape } = matrix(name, value);
  if (shape[0] !== shape[1]) throw new ShapeError(`${name}: expected shape [V, V], got [${shape.join(", ")}]`);
  if (dtype !== "f32" && dtype !== "f64") throw new DTypeError(`${name}: expected f32 or f64, got ${dtype}`);
}

function embeddingMatrix(name: string, value: unknown): void {
  const { dtype } = matrix(name, value);
  if (dtype === "i32") throw new DTypeError(`${name}: expected a floating-point tensor, got i32`);
}

type Checks = Readonly<Record<string, Check>>;

const NAMED_CHECKS: Readonly<Record<Exclude<DivergenceName, "f" | "wasserstein">, Checks>> = {
  kl: {},
  forward_kl: {},
  jeffreys: {},
  renyi: { alpha: positiveOrInfinity },
  bhattacharyya: {},
  hellinger: { root: flag },
  js: { beta: betweenZeroAndOne },
  tv: {},
  chi2: {},
  neyman_chi2: {},
  alpha: { alpha: finite },
  tsallis: { alpha: positive },
};

const TRANSPORT_CHECKS: Checks = {
  method: oneOf(TRANSPORT_METHODS),
  epsilon: positive,
  debias: flag,
  maxIterations: count,
  tolerance: positive,
};
const COST_CHECKS: Checks = { cost: costMatrix, ...TRANSPORT_CHECKS };
const EMBEDDING_CHECKS: Checks = { embeddings: embeddingMatrix, topK: count, metric: oneOf(TRANSPORT_METRICS), ...TRANSPORT_CHECKS };

function generatorChecks(kind: NamedGeneratorDivergence | OwnGeneratorDivergence): Checks {
  if (!("generator" in kind)) return { f: callable, derivative: callable };
  const generator = oneOf(GENERATOR_NAMES);
  generator("f: generator", kind.generator);
  // A root of a sum is no sum of f(p/q).
  return { generator, ...(kind.generator === "hellinger" ? {} : NAMED_CHECKS[kind.generator]) };
}

function wassersteinChecks(kind: OrderedWasserstein | CostWasserstein | EmbeddingWasserstein): Checks {
  if ("cost" in kind) return COST_CHECKS;
  if ("embeddings" in kind) return EMBEDDING_CHECKS;
  return { exponent: atLeastOne };
}

function checksOf(kind: Divergence): Checks {
  if (kind.name === "f") return generatorChecks(kind);
  if (kind.name === "wasserstein") return wassersteinChecks(kind);
  oneOf([...Object.keys(NAMED_CHECKS), "f", "wasserstein"])("divergence", kind.name);
  return NAMED_CHECKS[kind.name];
}

/** Throws unless this is a divergence as the makers return it. */
export function checkDivergence(kind: Divergence): void {
  if (typeof kind !== "object" || kind === null) throw new DTypeError("divergence: expected a divergence, as divergences.kl() returns it");
  const checks = checksOf(kind);
  const { name, ...parameters } = kind as { name: string } & Record<string, unknown>;
  for (const parameter of Object.keys(parameters)) {
    if (!Object.hasOwn(checks, parameter)) throw new OutOfRangeError(`${name}: ${parameter} does not go with this form of it`);
  }
  for (const [parameter, check] of Object.entries(checks)) check(`${name}: ${parameter}`, parameters[parameter]);
}

function checked<Kind extends Divergence>(kind: Kind): Kind {
  const given = Object.fromEntries(Object.entries(kind).filter(([, value]) => value !== undefined)) as unknown as Kind;
  checkDivergence(given);
  return Object.freeze(given);
}

function alphaDivergence(name: AlphaDivergence["name"], { alpha }: { alpha: number }): AlphaDivergence {
  return checked({ name, alpha });
}

/** A generator by name, with the parameters of the divergence of that name; or a function and its derivative. */
export type GeneratorOptions =
  | { generator: Exclude<GeneratorName, "alpha" | "js"> }
  | { generator: "alpha"; alpha: number }
  | { generator: "js"; beta?: number }
  | Pick<OwnGeneratorDivergence, "f" | "derivative">;

function generatorDivergence(options: GeneratorOptions): NamedGeneratorDivergence | OwnGeneratorDivergence {
  const defaults = "generator" in options && options.generator === "js" ? { beta: 0.5 } : {};
  return checked({ ...defaults, ...options, name: "f" });
}

export interface OrderedWassersteinOptions {
  /** Power of the distances between the cumulated probabilities. Default 1. */
  exponent?: number;
}

export interface CostWassersteinOptions extends TransportOptions {
  /** [V, V] f32 f64: what it costs to carry probability from token i of the policy to token j of the reference. V ≤ 4096. */
  cost: Tensor;
}

export interface EmbeddingWassersteinOptions extends TransportOptions {
  /** [V, E] f32 f64 f16 bf16: the cost is a distance of the tokens' embeddings. */
  embeddings: Tensor;
  /** The support: the union of so many likeliest tokens of either row. Default 64. */
  topK?: number;
  /** Default "euclidean". */
  metric?: TransportMetric;
}

const TRANSPORT_DEFAULTS: Required<TransportOptions> = {
  method: "sinkhorn",
  epsilon: 0.05,
  debias: false,
  maxIterations: 1000,
  tolerance: 1e-6,
};

function wasserstein(
  options: OrderedWassersteinOptions | CostWassersteinOptions | EmbeddingWassersteinOptions = {},
): OrderedWasserstein | CostWasserstein | EmbeddingWasserstein {
  if ("cost" in options) return checked({ ...TRANSPORT_DEFAULTS, ...options, name: "wasserstein" });
  if ("embeddings" in options) return checked({ topK: 64, metric: "euclidean", ...TRANSPORT_DEFAULTS, ...options, name: "wasserstein" });
  return checked({ exponent: 1, ...options, name: "wasserstein" });
}

/** Makers of divergences D(p‖q) of p = softmax(policy) and q = softmax(reference). Infinite values and their conditions: see `divergence`. */
export const divergences = {
  /** KL(p‖q) = Σ p ln(p/q). */
  kl: (): PlainDivergence => checked({ name: "kl" }),
  /** KL(q‖p) = Σ q ln(q/p). */
  forwardKl: (): PlainDivergence => checked({ name: "forward_kl" }),
  /** KL(p‖q) + KL(q‖p). */
  jeffreys: (): PlainDivergence => checked({ name: "jeffreys" }),
  /** ln(Σ p^α q^(1−α))/(α−1), 0 < α ≤ ∞: kl at α = 1, max ln(p/q) at α = ∞. */
  renyi: (options: { alpha: number }) => alphaDivergence("renyi", options),
  /** −ln Σ √(pq). */
  bhattacharyya: (): PlainDivergence => checked({ name: "bhattacharyya" }),
  /** H² = 1 − Σ √(pq); with `root` H. */
  hellinger: ({ root = false }: { root?: boolean } = {}): HellingerDivergence => checked({ name: "hellinger", root }),
  /** β·KL(p‖m) + (1−β)·KL(q‖m), m = βp + (1−β)q, 0 < β < 1; default ½, which is at most ln 2. */
  js: ({ beta = 0.5 }: { beta?: number } = {}): JsDivergence => checked({ name: "js", beta }),
  /** ½·Σ |p − q|. */
  tv: (): PlainDivergence => checked({ name: "tv" }),
  /** Pearson: Σ (p − q)²/q. */
  chi2: (): PlainDivergence => checked({ name: "chi2" }),
  /** Neyman: Σ (p − q)²/p. */
  neymanChi2: (): PlainDivergence => checked({ name: "neyman_chi2" }),
  /** Cichocki–Amari: (Σ p^α q^(1−α) − 1)/(α(α−1)), any finite α: kl at α = 1, forward_kl at α = 0. */
  alpha: (options: { alpha: number }) => alphaDivergence("alpha", options),
  /** (Σ p^α q^(1−α) − 1)/(α−1), α > 0: kl at α = 1. */
  tsallis: (options: { alpha: number }) => alphaDivergence("tsallis", options),
  /**
   * Csiszár: Σ q·f(p/q). By the name of a generator, computed as the divergence of that name; or with a convex `f` of the caller's and its
   * `derivative`, which are evaluated in JavaScript on the thread of the call. These need not satisfy f(1) = f′(1) = 0.
   */
  f: generatorDivergence,
  /**
   * Optimal transport. With an `exponent`: tokens on a line, Σ |F_p − F_q|^exponent of the cumulated probabilities. With a `cost` matrix: between all
   * tokens. With `embeddings`: between the likeliest tokens of either row, at the distance of their embeddings.
   */
  wasserstein,
};

/** A divergence as plain JSON; an infinite parameter is the text "Infinity". */
export type DivergenceState = { name: string } & Record<string, string | number | boolean>;

/** @throws DataError for a divergence that holds functions or tensors. */
export function divergenceState(kind: Divergence): DivergenceState {
  const entries = Object.entries(kind).map(([name, value]: [string, unknown]) => {
    if (typeof value === "function" || value instanceof Tensor) {
      throw new DataError(`${kind.name}: ${name} cannot be saved as JSON; make the objective anew instead`);
    }
    return [name, value === Number.POSITIVE_INFINITY ? "Infinity" : value];
  });
  return Object.fromEntries(entries) as DivergenceState;
}

/** @throws a DpoKernelsError when this is not what divergenceState returned. */
export function divergenceFromState(state: DivergenceState): Divergence {
  const entries = Object.entries(state).map(([name, value]) => [name, value === "Infinity" ? Number.POSITIVE_INFINITY : value]);
  return checked(Object.fromEntries(entries) as Divergence);
}
