#include "native/core/divergence.h"

#include <algorithm>

#include "native/core/divergence_checks.h"
#include "native/math/divergences.h"
#include "native/math/transport_kinds.h"

namespace dpo {
namespace {

using math::Divergence;
using math::TransportMethod;
using math::TransportMetric;

constexpr std::int32_t kDivergenceKinds = static_cast<std::int32_t>(Divergence::transport) + 1;
constexpr std::int32_t kTransportMethods = static_cast<std::int32_t>(TransportMethod::exact) + 1;
constexpr std::int32_t kTransportMetrics = static_cast<std::int32_t>(TransportMetric::cosine) + 1;

// Support of one transport problem: its costs are held as a matrix.
constexpr std::int64_t kMaxSupport = 4096;
constexpr std::int64_t kMaxExactSupport = 1024;

void check_parameter(Checks& checks, Divergence kind, double parameter) {
  switch (kind) {
    case Divergence::renyi:
      checks.require(parameter > 0, DPO_ERR_RANGE, "renyi: alpha must be greater than 0; Infinity is allowed");
      break;
    case Divergence::js:
      checks.require(parameter > 0 && parameter < 1, DPO_ERR_RANGE, "js: beta must be greater than 0 and less than 1");
      break;
    case Divergence::alpha:
      checks.finite("alpha: alpha", parameter);
      break;
    case Divergence::tsallis:
      checks.positive("tsallis: alpha", parameter);
      break;
    case Divergence::wasserstein:
      checks.finite("wasserstein: exponent", parameter);
      checks.require(parameter >= 1, DPO_ERR_RANGE, "wasserstein: exponent must be at least 1");
      break;
    default:
      break;
  }
}

void check_support(Checks& checks, const dpo_transport_options& transport, std::int64_t vocabulary) {
  const bool of_top_k = present(transport.embeddings);
  checks.require(of_top_k ? transport.top_k >= 1 && transport.top_k <= vocabulary : transport.top_k == 0, DPO_ERR_RANGE,
                 "wasserstein: topK goes with embeddings and must be from 1 to the vocabulary");
  const std::int64_t support = of_top_k ? std::min(vocabulary, 2 * transport.top_k) : vocabulary;
  checks.require(support <= kMaxSupport, DPO_ERR_RANGE,
                 "wasserstein: a row's support must be at most 4096 tokens; give embeddings and topK for a larger vocabulary");
  checks.require(transport.method != static_cast<std::int32_t>(TransportMethod::exact) || support <= kMaxExactSupport,
                 DPO_ERR_RANGE, "wasserstein: the exact method takes a support of at most 1024 tokens; use sinkhorn");
}

void check_transport(Checks& checks, const dpo_transport_options& transport, std::int64_t vocabulary) {
  checks.require(transport.method >= 0 && transport.method < kTransportMethods, DPO_ERR_RANGE, "wasserstein: unknown method");
  checks.require(transport.metric >= 0 && transport.metric < kTransportMetrics, DPO_ERR_RANGE, "wasserstein: unknown metric");
  checks.require(present(transport.cost) != present(transport.embeddings), DPO_ERR_SHAPE,
                 "wasserstein: expected either a cost or embeddings");
  checks.optional_shape("cost", transport.cost, {vocabulary, vocabulary}).arithmetic("cost", transport.cost);
  checks.optional_shape("embeddings", transport.embeddings, {vocabulary, -1}).floating("embeddings", transport.embeddings);
  check_support(checks, transport, vocabulary);
  checks.positive("epsilon", transport.epsilon).positive("tolerance", transport.tolerance);
  checks.require(transport.max_iterations >= 1, DPO_ERR_RANGE, "maxIterations: must be at least 1");
}

void check_logits(Checks& checks, const dpo_tensor& policy, const dpo_tensor& reference, const dpo_logit_options& options) {
  checks.shape("policy", policy, {-1, -1}).floating("policy", policy);
  checks.shape("reference", reference, {policy.shape[0], policy.shape[1]}).dtype("reference", reference, policy.dtype);
  checks.positive("temperature", options.temperature).non_negative("softcap", options.softcap);
}

/// Only the caller can evaluate a generator of kind f; every other kind has none.
void check_generator(Checks& checks, const dpo_divergence_args& args) {
  const bool wanted = args.divergence.kind == static_cast<std::int32_t>(Divergence::f);
  const std::int64_t rows = args.policy.shape[0], vocabulary = args.policy.shape[1];
  checks.require(present(args.generator_values) == wanted, DPO_ERR_SHAPE, "f: the values of the generator go with kind f");
  checks.require(present(args.generator_slopes) == (wanted && present(args.grad_policy)), DPO_ERR_SHAPE,
                 "f: the slopes of the generator go with kind f and a gradient");
  checks.optional_shape("generator values", args.generator_values, {rows, vocabulary});
  checks.dtype("generator values", args.generator_values, DPO_F64);
  checks.optional_shape("generator slopes", args.generator_slopes, {rows, vocabulary});
  checks.dtype("generator slopes", args.generator_slopes, DPO_F64);
}

DivergenceRows rows_of(const dpo_divergence_args& args) {
  return {args.targets, args.upstream, args.target_upstream, args.values};
}

}  // namespace

void check_divergence_kind(Checks& checks, const dpo_divergence_kind& divergence, std::int64_t vocabulary) {
  checks.require(divergence.kind >= 0 && divergence.kind < kDivergenceKinds, DPO_ERR_RANGE, "kind: unknown divergence");
  if (!checks.ok()) return;
  const auto kind = static_cast<Divergence>(divergence.kind);
  check_parameter(checks, kind, divergence.parameter);
  if (kind == Divergence::transport) check_transport(checks, divergence.transport, vocabulary);
}

void check_divergence_rows(Checks& checks, const DivergenceRows& args, std::int64_t rows, std::int32_t dtype, bool has_gradient) {
  checks.optional_shape("targets", args.targets, {rows}).dtype("targets", args.targets, DPO_I32);
  checks.optional_shape("upstream", args.upstream, {rows}).arithmetic("upstream", args.upstream);
  checks.optional_shape("targetUpstream", args.target_upstream, {rows}).arithmetic("targetUpstream", args.target_upstream);
  checks.require(present(args.upstream) == has_gradient, DPO_ERR_SHAPE, "upstream: goes with a gradient");
  checks.require(!present(args.target_upstream) || (present(args.targets) && has_gradient), DPO_ERR_SHAPE,
                 "targetUpstream: goes with targets and upstream");
  checks.shape("out.values", args.values, {rows}).dtype("out.values", args.values, result_dtype(dtype));
}

void check_divergence_contents(Checks& checks, const dpo_divergence_kind& divergence, const DivergenceRows& args,
                               std::int64_t vocabulary) {
  if (present(args.targets)) checks.target_contents(args.targets, vocabulary);
  checks.finite_contents("upstream", args.upstream).finite_contents("targetUpstream", args.target_upstream);
  if (divergence.kind != static_cast<std::int32_t>(Divergence::transport)) return;
  checks.finite_contents("cost", divergence.transport.cost);
  checks.finite_contents("embeddings", divergence.transport.embeddings);
}

Status check(const dpo_divergence_args& args) {
  Checks checks;
  check_logits(checks, args.policy, args.reference, args.options);
  const bool has_gradient = present(args.grad_policy);
  check_divergence_rows(checks, rows_of(args), args.policy.shape[0], args.policy.dtype, has_gradient);
  if (checks.ok()) check_divergence_kind(checks, args.divergence, args.policy.shape[1]);
  check_generator(checks, args);
  checks.optional_shape("out.gradPolicy", args.grad_policy, {args.policy.shape[0], args.policy.shape[1]});
  checks.dtype("out.gradPolicy", args.grad_policy, args.policy.dtype);
  return checks.status();
}

Status check_contents(const dpo_divergence_args& args) {
  Checks checks;
  check_divergence_contents(checks, args.divergence, rows_of(args), args.policy.shape[1]);
  return checks.status();
}

Status check(const dpo_density_ratios_args& args) {
  Checks checks;
  check_logits(checks, args.policy, args.reference, args.options);
  checks.optional_shape("targets", args.targets, {args.policy.shape[0]}).dtype("targets", args.targets, DPO_I32);
  checks.shape("ratios", args.ratios, {args.policy.shape[0], args.policy.shape[1]}).dtype("ratios", args.ratios, DPO_F64);
  return checks.status();
}

Status check_contents(const dpo_density_ratios_args& args) {
  Checks checks;
  if (present(args.targets)) checks.target_contents(args.targets, args.policy.shape[1]);
  return checks.status();
}

}  // namespace dpo
