import { type Divergence, divergenceSync, divergences, type Tensor, zeros } from "dpo-kernels";
import type { Bench, Context } from "./context.js";
import { bf16Of, noisy, randomTensor } from "./inputs.js";
import { interleave, local, type Variant } from "./measure.js";
import type { Row } from "./report.js";
import { against, type Passes, type Work } from "./work.js";

/** Those that read a row once, and a second time only when policy and reference are near. */
const ONE_PASS = {
  kl: divergences.kl(),
  forward_kl: divergences.forwardKl(),
  jeffreys: divergences.jeffreys(),
  "renyi(0.5)": divergences.renyi({ alpha: 0.5 }),
  "renyi(2)": divergences.renyi({ alpha: 2 }),
  bhattacharyya: divergences.bhattacharyya(),
  hellinger: divergences.hellinger(),
  "alpha(0.3)": divergences.alpha({ alpha: 0.3 }),
};

const TWO_PASSES = {
  js: divergences.js(),
  "js(0.3)": divergences.js({ beta: 0.3 }),
  tv: divergences.tv(),
  chi2: divergences.chi2(),
  neyman_chi2: divergences.neymanChi2(),
  "tsallis(2)": divergences.tsallis({ alpha: 2 }),
};

const KINDS: Record<string, Divergence> = { ...ONE_PASS, ...TWO_PASSES };
/** Also timed in bf16, with rows that are all but equal, and with results supplied. */
const VARIED = ["kl", "js"] as const;
/** Also timed in peers. */
const IN_PYTORCH = ["kl", "renyi(2)", "js"] as const;
const IN_PROCESS = ["renyi(2)", "js"] as const;

const READ: Passes = { name: "two reads of the logits", passes: 2 };
const MOVED: Passes = { name: "two reads + one write of the logits", passes: 3 };

interface Rows {
  policy: Tensor;
  reference: Tensor;
}

/** Value and gradient, whose memory the next run is given. */
function step(rows: Rows, kind: Divergence): Variant {
  return local(() => divergenceSync({ ...rows, kind, upstream: 1 }).gradPolicy?.dispose());
}

/** The same in memory of the caller's, which a call that fails may not touch. */
function stepInto(rows: Rows, kind: Divergence, out: { values: Tensor; gradPolicy: Tensor }): Variant {
  return local(() => divergenceSync({ ...rows, kind, upstream: 1 }, { out }));
}

/** Peers by "kind: name". */
async function peersOf(
  { shape, pytorch, inProcess }: Context,
  rows: { policy: Tensor<"f32">; reference: Tensor<"f32"> },
): Promise<Record<string, Variant>> {
  const all: Record<string, Variant> = {};
  const add = (kind: string, peers: Record<string, Variant> = {}) => {
    for (const [name, variant] of Object.entries(peers)) all[`${kind}: ${name}`] = variant;
  };
  for (const kind of IN_PYTORCH) add(kind, await pytorch?.variants("divergence", { ...shape, kind }));
  add("value", pytorch?.eager("divergence", { ...shape, kind: "kl", valueOnly: true }));
  for (const kind of IN_PROCESS) add(kind, inProcess?.divergence(kind, rows));
  return all;
}

async function run(context: Context): Promise<Row[]> {
  const { shape, rounds, placed } = context;
  const { rows, vocabulary } = shape;
  const policy = randomTensor([rows, vocabulary], 2);
  const reference = noisy(policy, 0.7);
  const { apart, near, bf16, out } = placed({
    apart: { policy, reference },
    near: { policy, reference: noisy(policy, 1e-4) },
    bf16: { policy: bf16Of(policy), reference: bf16Of(reference) },
    out: { values: zeros([rows], "f32"), gradPolicy: zeros([rows, vocabulary], "f32") },
  });
  const variants = [
    ...Object.entries(KINDS).map(([name, kind]) => [name, step(apart, kind)] as const),
    ...VARIED.map((name) => [`${name} bf16`, step(bf16, KINDS[name] as Divergence)] as const),
    ...VARIED.map((name) => [`${name} near`, step(near, KINDS[name] as Divergence)] as const),
    ...VARIED.map((name) => [`${name} into`, stepInto(apart, KINDS[name] as Divergence, out)] as const),
    ["value", local(() => divergenceSync({ ...apart, kind: divergences.kl() }))] as const,
  ];
  const timings = await interleave(Object.fromEntries(variants), rounds, await peersOf(context, { policy, reference }));

  const row = (name: string, what: string, work: Work, ceiling: Work & { bound?: number } = work, peers: Row["peers"] = {}): Row => ({
    operation: "divergence",
    what: `[${rows}, ${vocabulary}] ${what}`,
    timing: timings[name] as Row["timing"],
    ...against(context, work, ceiling),
    peers,
  });
  const peersFor = (kind: string) => {
    const prefix = `${kind}: `;
    const own = Object.entries(timings.peers).filter(([name]) => name.startsWith(prefix));
    return Object.fromEntries(own.map(([name, timing]) => [name.slice(prefix.length), timing]));
  };
  return [
    ...Object.keys(KINDS).map((name) =>
      row(name, `f32, ${name}, value + gradient`, MOVED, { ...MOVED, bound: name in ONE_PASS ? 1.4 : 2 }, peersFor(name)),
    ),
    ...VARIED.map((name) =>
      row(`${name} bf16`, `bf16, ${name}, value + gradient`, { ...MOVED, dtype: "bf16" }, { ...MOVED, name: `${MOVED.name} in f32` }),
    ),
    ...VARIED.map((name) => row(`${name} near`, `f32, ${name}, value + gradient, rows 1e-4 apart`, MOVED)),
    ...VARIED.map((name) => row(`${name} into`, `f32, ${name}, value + gradient into the caller's memory`, MOVED)),
    row("value", "f32, kl, value", READ, READ, peersFor("value")),
  ];
}

export const divergenceBench: Bench = { needs: ["divergence"], run };
