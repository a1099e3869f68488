import { startBackend } from "./backend.js";
import { type TokenPair, tokenize, truncatedAnswers } from "./batch.js";
import { readPairs, split, type TextPair } from "./data.js";
import type { Run } from "./figures.js";
import { MODEL_TEXT, Model } from "./model.js";
import { HELP, type Options, parseOptions } from "./options.js";
import { Progress } from "./progress.js";
import { seeded } from "./random.js";
import { print, writeReports } from "./report.js";
import { Tokenizer } from "./tokenizer.js";
import { type Arm, layGround, trainArm, trainSupervised } from "./train.js";

const FEWEST = 20;
const HELD_OUT = { share: 0.2, most: 160 } as const;
const PLAIN: Arm = { name: "plain", beta: 0.1, gamma: 0 };
const HYBRID: Arm = { name: "hybrid", beta: 0.1, gamma: 0.25 };

function armsOf({ divergence, alpha }: Options): Arm[] {
  if (divergence === undefined) return [PLAIN, HYBRID];
  return [PLAIN, HYBRID, { ...HYBRID, name: `hybrid + ${divergence.name}`, divergence, alpha }];
}

function texts(pairs: readonly TextPair[]): string[] {
  return pairs.flatMap((pair) => [pair.prompt, ` ${pair.chosen}`, ` ${pair.rejected}`]);
}

/** Splits the pairs and turns them into tokens; the vocabulary sees the training side only. */
function prepare(pairs: readonly TextPair[], { seed, vocab }: Options) {
  const sides = split(pairs, HELD_OUT.share, HELD_OUT.most, seed);
  const tokenizer = new Tokenizer(texts(sides.training), vocab);
  return {
    training: tokenize(sides.training, tokenizer),
    heldOut: tokenize(sides.heldOut, tokenizer),
    vocabulary: tokenizer.size,
    unknownShare: tokenizer.unknownShare(texts(sides.heldOut)),
  };
}

/** The supervised phase, then every arm from where it ended. */
function train(model: Model, training: TokenPair[], heldOut: TokenPair[], options: Options) {
  const { steps, supervisedSteps, seed, kernel, divergence, quiet } = options;
  const arms = armsOf(options);
  const progress = new Progress(supervisedSteps + steps * arms.length, quiet);
  try {
    const supervised = trainSupervised(model, training, { steps: supervisedSteps, seed }, (loss) => progress.step("supervised", loss));
    const ground = layGround(model, training, heldOut, { kernel, divergence });
    const results = arms.map((arm) => trainArm(ground, arm, { steps, seed }, (loss) => progress.step(arm.name, loss)));
    ground.reference.dispose();
    return { supervised, sigma: ground.sigma, arms: results };
  } finally {
    progress.stop();
  }
}

async function execute(options: Options): Promise<Run> {
  const started = performance.now();
  const backend = await startBackend();
  const { pairs, problems } = await readPairs(options.data, options.pairs);
  if (pairs.length < FEWEST) throw new Error(`${pairs.length} usable pairs; at least ${FEWEST} are needed`);
  const { training, heldOut, vocabulary, unknownShare } = prepare(pairs, options);
  const model = Model.create(vocabulary, seeded(options.seed));
  const results = train(model, training, heldOut, options);
  return {
    options,
    backend,
    model: MODEL_TEXT,
    parameters: model.parameterCount,
    vocabulary,
    unknownShare,
    truncated: [...training, ...heldOut].reduce((sum, pair) => sum + truncatedAnswers(pair), 0),
    pairs: { training: training.length, heldOut: heldOut.length },
    problems,
    ...results,
    seconds: (performance.now() - started) / 1000,
  };
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(HELP);
    return;
  }
  const run = await execute(options);
  const written = await writeReports(run);
  if (!options.quiet) print(run, written);
}

main().catch((error: unknown) => {
  process.stderr.write(`quickstart: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
