import { NonFiniteError, OutOfRangeError } from "../errors.js";
import type { Kernel } from "../kernels/kernel.js";
import type { Steps } from "../native/operation.js";
import { logKernelSteps, logKernelVjpSteps, type MixtureDiagnostics } from "../pair-kernel.js";
import type { Metrics } from "../preference.js";
import { checkOut, type Tensor } from "../tensor.js";
import { checkEmbeddings, type Embeddings } from "./inputs.js";
import type { KernelTerm } from "./parts.js";

/** log k of the batch's pairs, and how to pull it back together with −η·Σ H of a mixture's groups. */
export function* kernelTerm(kernel: Kernel, embeddings: Embeddings, entropyWeight: number): Steps<KernelTerm> {
  // Views of our own: the caller may dispose of the tensors while the step is under way.
  const view = (side: Tensor): Tensor => side.reshape(side.shape);
  const [prompt, sides] = [view(embeddings.prompt), [view(embeddings.chosen), view(embeddings.rejected)]];
  const { logK, diagnostics } = yield* namingEmbeddings(logKernelSteps(prompt, sides, kernel));
  return {
    logKernel: logK.reshape([logK.size]),
    regularizer: diagnostics ? -entropyWeight * sumOf(Object.values(diagnostics.entropies)) : 0,
    metrics: diagnostics ? metricsOf(diagnostics) : {},
    effectiveNumbers: diagnostics ? effectiveNumbers(diagnostics) : {},
    *pullBack(upstream, out) {
      const upstreams = { logK: upstream.reshape(logK.shape), entropy: -entropyWeight };
      const grads = yield* logKernelVjpSteps(prompt, sides, kernel, upstreams, { u: out.prompt, sides: [out.chosen, out.rejected] });
      const [chosen, rejected] = grads.sides as [Tensor, Tensor];
      return { embeddings: { prompt: grads.u, chosen, rejected }, kernel: grads.params };
    },
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** "hmk/weight/local/rbf", and for the root "hmk/entropy". */
function metric(name: string, path: string): string {
  return path === "" ? `hmk/${name}` : `hmk/${name}/${path}`;
}

function metricsOf({ weights, entropies, responsibilities, kernels }: MixtureDiagnostics): Metrics {
  const metrics: Metrics = {};
  for (const [path, weight] of Object.entries(weights)) metrics[metric("weight", path)] = weight;
  for (const [path, entropy] of Object.entries(entropies)) {
    metrics[metric("entropy", path)] = entropy;
    metrics[metric("effective", path)] = Math.exp(entropy);
  }
  const pairs = responsibilities.size / kernels.length;
  kernels.forEach((path, member) => {
    let sum = 0;
    for (let pair = 0; pair < pairs; pair++) sum += responsibilities.data[pair * kernels.length + member] ?? 0;
    metrics[metric("responsibility", path)] = sum / pairs;
  });
  return metrics;
}

/** e^H of each group by path: how many of its members count. */
function effectiveNumbers({ entropies }: MixtureDiagnostics): Record<string, number> {
  return Object.fromEntries(Object.entries(entropies).map(([path, entropy]) => [path, Math.exp(entropy)]));
}

/** What pairKernel calls its arguments, as the objective does. */
const EMBEDDING_NAMES: Record<string, string> = { u: "embeddings.prompt", v: "embeddings.chosen", "v[1]": "embeddings.rejected" };

/** Runs the steps and gives their errors the names of the embeddings. */
function* namingEmbeddings<Result>(steps: Steps<Result>): Steps<Result> {
  try {
    return yield* steps;
  } catch (error) {
    if (!(error instanceof NonFiniteError || error instanceof OutOfRangeError)) throw error;
    const message = error.message.replace(/^(u|v\[1\]|v):/, (_, name: string) => `${EMBEDDING_NAMES[name]}:`);
    const ErrorClass = error instanceof NonFiniteError ? NonFiniteError : OutOfRangeError;
    throw new ErrorClass(message, { index: error.index, cause: error });
  }
}

/** Before anything is computed: the policy's gradients are written before those of the embeddings, and both or neither must be. */
export function checkEmbeddingsOut(embeddings: Embeddings | undefined, out: Partial<Embeddings> | undefined): void {
  checkEmbeddings(embeddings);
  if (out === undefined) return;
  for (const side of ["prompt", "chosen", "rejected"] as const) {
    checkOut(`out.embeddings.${side}`, out[side], embeddings[side].dtype, embeddings[side].shape);
  }
}
