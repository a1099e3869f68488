import type { Problems } from "./data.js";
import type { Summary } from "./evaluate.js";
import type { Options } from "./options.js";
import type { Arm, ArmResult } from "./train.js";

/** All that a finished run has to tell. */
export interface Run {
  readonly options: Options;
  readonly backend: string;
  readonly model: string;
  readonly parameters: number;
  readonly vocabulary: number;
  readonly unknownShare: number;
  readonly truncated: number;
  readonly pairs: { readonly training: number; readonly heldOut: number };
  readonly problems: Problems;
  readonly supervised: readonly number[];
  readonly sigma: number;
  readonly arms: readonly ArmResult[];
  readonly seconds: number;
}

/** The final table, for the terminal and for the page. */
export interface Figures {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`;
}

/** A share with its standard error. */
function measured(share: number, pairs: number): string {
  const error = Math.sqrt((share * (1 - share)) / pairs);
  return `${percent(share)} ± ${(100 * error).toFixed(1)}`;
}

/** An accuracy; when nothing has been said yet it is no measurement. */
function accuracy(share: number, margin: number, pairs: number): string {
  return share === 0.5 && margin === 0 ? "all ties" : measured(share, pairs);
}

const ROWS: readonly (readonly [string, (summary: Summary) => string])[] = [
  ["reward accuracy (a tie counts ½)", (of) => accuracy(of.accuracy, of.margin, of.pairs)],
  ["  by log-probabilities alone", (of) => accuracy(of.policyAccuracy, of.policyMargin, of.pairs)],
  ["  by the kernel alone", (of) => measured(of.kernelAccuracy, of.pairs)],
  ["margin", (of) => of.margin.toFixed(3)],
  ["  by log-probabilities alone", (of) => of.policyMargin.toFixed(3)],
  ["loss", (of) => of.loss.toFixed(4)],
  ["  by log-probabilities alone", (of) => of.policyLoss.toFixed(4)],
  ["kernel log-ratio", (of) => of.kernelRatio.toFixed(3)],
  ["chosen more likely per token", (of) => measured(of.tokenAccuracy, of.pairs)],
  ["change of log π(chosen)", (of) => of.chosenChange.toFixed(2)],
];

/** A column of the table. */
interface Moment {
  readonly name: string;
  readonly summary: Summary;
  readonly divergence: number | undefined;
}

/** Before and after; an arm with a divergence starts where the one without it does. */
function momentsOf({ arm, before, after, divergence }: ArmResult): Moment[] {
  const end = { name: `${arm.name}, after`, summary: after, divergence };
  return arm.divergence === undefined ? [{ name: `${arm.name}, before`, summary: before, divergence: 0 }, end] : [end];
}

export function figures({ arms, options }: Run): Figures {
  const moments = arms.flatMap(momentsOf);
  const rows = ROWS.map(([label, read]) => [label, ...moments.map(({ summary }) => read(summary))]);
  const distance = moments.map(({ divergence = Number.NaN }) => divergence.toFixed(4));
  return {
    head: ["held-out pairs", ...moments.map(({ name }) => name)],
    rows: options.divergence === undefined ? rows : [...rows, [`${options.divergence.name} from the reference, per token`, ...distance]],
  };
}

function listProblems(problems: Problems, used: number): string {
  const entries = [...problems];
  const left = entries.reduce((sum, [, { count }]) => sum + count, 0);
  if (left === 0) return `All ${used} records read were usable.`;
  const reasons = entries.map(([reason, { count, lines }]) => {
    const more = count > lines.length ? ", …" : "";
    return `${reason}: ${count} (line ${lines.join(", ")}${more})`;
  });
  return `${left} of ${used + left} records read were left out. ${reasons.join("; ")}.`;
}

function kernelText({ options, sigma }: Run): string {
  if (options.kernel === "rbf") return `rbf, sigma ${sigma.toFixed(3)} (median distance)`;
  return "the mixture of kernels hmk, fitted to the reference's embeddings of training pairs, its weights and parameters trained";
}

/** What a reader must know to judge the figures, a sentence or two per item. */
export function remarks(run: Run): string[] {
  const { pairs, arms, options } = run;
  const [first] = arms;
  const curvePairs = first?.curve[0]?.pairs ?? 0;
  const weights = ({ beta, gamma, alpha }: Arm) => `β ${beta}, γ ${gamma}${alpha === undefined ? "" : `, α ${alpha}`}`;
  const rewards = arms.map(({ arm }) => `${arm.name}: ${weights(arm)}`).join("; ");
  const speed = arms.map(({ arm, stepSeconds }) => `${arm.name} ${(1000 * stepSeconds).toFixed(0)} ms`).join(", ");
  return [
    `${pairs.training} pairs for training, ${pairs.heldOut} held out. ${listProblems(run.problems, pairs.training + pairs.heldOut)}`,
    `Vocabulary ${run.vocabulary}; ${percent(run.unknownShare)} of the held-out tokens are outside it. ${run.truncated} of ${2 * (pairs.training + pairs.heldOut)} answers were cut short.`,
    `Model: ${run.model}, ${run.parameters} weights, on TensorFlow.js ${run.backend}. Supervised phase: ${run.supervised.length} steps. Every arm: ${first?.losses.length ?? 0} steps from the same weights with the same batches, seed ${options.seed}.`,
    `Reward: β·(log π − log π_ref) + γ·log k(prompt, answer); a divergence from the reference is added to the loss with weight α. ${rewards}. k: ${kernelText(run)}, on pooled hidden states. For the plain arm the kernel is only measured.`,
    "Before training the policy is the reference, so every log-probability reward is 0: all pairs tie.",
    "The losses and margins of plain and hybrid count different things; compare the arms by the rows “by log-probabilities alone”. ± is one standard error.",
    `The curves show the first ${curvePairs} held-out pairs, the table shows all.`,
    `Time: ${run.seconds.toFixed(1)} s in all; per preference step ${speed}.`,
  ];
}
