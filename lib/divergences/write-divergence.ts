import type { Frame } from "../native/frame.js";
import { type Divergence, TRANSPORT_METHODS, TRANSPORT_METRICS } from "./index.js";

/** In the order of Divergence in native/math/divergences.h. */
const DIVERGENCE_KINDS = [
  "kl",
  "forward_kl",
  "jeffreys",
  "renyi",
  "bhattacharyya",
  "hellinger",
  "hellinger_root",
  "js",
  "tv",
  "chi2",
  "neyman_chi2",
  "alpha",
  "tsallis",
  "f",
  "wasserstein",
  "transport",
] as const;

function nativeKind(divergence: Divergence): (typeof DIVERGENCE_KINDS)[number] {
  switch (divergence.name) {
    case "f":
      return "generator" in divergence ? divergence.generator : "f";
    case "hellinger":
      return divergence.root ? "hellinger_root" : "hellinger";
    case "wasserstein":
      return "exponent" in divergence ? "wasserstein" : "transport";
    default:
      return divergence.name;
  }
}

function parameterOf(divergence: Divergence): number {
  if ("alpha" in divergence) return divergence.alpha ?? 0;
  if ("beta" in divergence) return divergence.beta ?? 0;
  return "exponent" in divergence ? divergence.exponent : 0;
}

/** A divergence that checkDivergence has let pass, for rows of `vocabulary` words, in the order of native/addon/shared_arguments.h. */
export function writeDivergence(frame: Frame, divergence: Divergence, vocabulary: number): void {
  frame.code(DIVERGENCE_KINDS.indexOf(nativeKind(divergence))).code(parameterOf(divergence));
  const cost = "cost" in divergence ? divergence.cost : undefined;
  const embedded = "embeddings" in divergence ? divergence : undefined;
  frame.optionalInput("cost", cost).optionalInput("embeddings", embedded?.embeddings);
  frame.code(Math.min(embedded?.topK ?? 0, vocabulary)).code(TRANSPORT_METRICS.indexOf(embedded?.metric ?? "euclidean"));
  const transport = "method" in divergence ? divergence : { method: "sinkhorn" as const, epsilon: 1, debias: false, maxIterations: 1, tolerance: 1 };
  frame.code(TRANSPORT_METHODS.indexOf(transport.method)).code(transport.epsilon).code(transport.debias);
  frame.code(transport.maxIterations).code(transport.tolerance);
}
