/**
 * Reference for entropic optimal transport, on small supports: min ⟨P, C⟩ + ε·KL(P‖p⊗q) over the plans P from p to q, by plain
 * Sinkhorn iterations in the log domain (Peyré & Cuturi, Computational Optimal Transport, section 4.4), run until next to nothing moves.
 */

import { remembered } from "../remember.js";
import { at, dot, logSumExp, type Numbers } from "./numbers.js";

export interface TransportSpec {
  readonly name: "transport";
  /** [n, n] */
  readonly cost: Numbers;
  readonly epsilon: number;
  /** OT(p, q) − ½·OT(p, p) − ½·OT(q, q) */
  readonly debias?: boolean | undefined;
  /** Between the so many likeliest outcomes of either side alone, renormalised. */
  readonly topK?: number | undefined;
}

export interface Transport {
  readonly value: number;
  /** The gradient in the logits of p, p_j·(f_j − Σ p f): that of the renormalised p, and 0 outside of the support. */
  readonly gradient: Float64Array;
  /** Σ|terms| of it. */
  readonly terms: Float64Array;
}

/** Value, and its derivative in p but for a constant. */
interface Dual {
  readonly value: number;
  readonly potential: Float64Array;
}

export const transport = remembered(transportOf);

function transportOf(spec: TransportSpec, p: Float64Array, q: Float64Array): Transport {
  const support = unionOfLargest(p, q, spec.topK ?? p.length);
  const [restrictedP, restrictedQ] = [restricted(p, support), restricted(q, support)];
  const cost = support.flatMap((i) => support.map((j) => at(spec.cost, i * p.length + j)));
  const { value, potential } = dual({ ...spec, cost }, restrictedP, restrictedQ);
  const mean = dot(restrictedP, potential);
  const magnitude = dot(restrictedP, potential.map(Math.abs));
  const gradient = new Float64Array(p.length);
  const terms = new Float64Array(p.length);
  support.forEach((j, index) => {
    const [pj, f] = [at(restrictedP, index), at(potential, index)];
    gradient[j] = pj * (f - mean);
    terms[j] = pj * (Math.abs(f) + magnitude);
  });
  return { value, gradient, terms };
}

function unionOfLargest(p: Float64Array, q: Float64Array, count: number): number[] {
  const largest = (values: Float64Array) => [...values.keys()].sort((i, j) => at(values, j) - at(values, i)).slice(0, count);
  return [...new Set([...largest(p), ...largest(q)])].sort((i, j) => i - j);
}

function restricted(values: Float64Array, support: readonly number[]): Float64Array {
  const total = support.reduce((mass, j) => mass + at(values, j), 0);
  return Float64Array.from(support, (j) => at(values, j) / total);
}

function dual({ cost, epsilon, debias = false }: TransportSpec, p: Float64Array, q: Float64Array): Dual {
  const between = sinkhorn(cost, epsilon, p, q);
  if (!debias) return between;
  const [ofP, ofQ] = [sinkhorn(cost, epsilon, p, p), sinkhorn(cost, epsilon, q, q)];
  return {
    value: between.value - (ofP.value + ofQ.value) / 2,
    // OT(p, p) depends on p twice, so half of it has the gradient of one.
    potential: between.potential.map((f, i) => f - at(ofP.potential, i)),
  };
}

const MOST_ROUNDS = 200_000;

function sinkhorn(cost: Numbers, epsilon: number, p: Float64Array, q: Float64Array): Dual {
  const n = p.length;
  const [logP, logQ] = [p.map(Math.log), q.map(Math.log)];
  const f = new Float64Array(n);
  const g = new Float64Array(n);
  const costs = Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (__, j) => at(cost, i * n + j)));
  for (let round = 0; round < MOST_ROUNDS; round++) {
    for (let j = 0; j < n; j++) g[j] = -epsilon * logSumExp(logP.map((log, i) => log + (at(f, i) - at(costs[i] ?? [], j)) / epsilon));
    let moved = 0;
    for (let i = 0; i < n; i++) {
      const next = -epsilon * logSumExp(logQ.map((log, j) => log + (at(g, j) - at(costs[i] ?? [], j)) / epsilon));
      moved = Math.max(moved, Math.abs(next - at(f, i)));
      f[i] = next;
    }
    // The dual objective; its third term, ε·(1 − ΣP), is 0 once a marginal is met.
    if (moved < 1e-14 * (epsilon + Math.abs(at(f, 0)))) return { value: dot(p, f) + dot(q, g), potential: f };
  }
  throw new Error("the reference's Sinkhorn iterations did not settle");
}
