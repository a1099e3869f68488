#include "bench/native/cuda_cases.h"

#include <cstring>

#include "native/core/dtype.h"
#include "native/math/divergences.h"
#include "native/math/preference_losses.h"

extern "C" const dpo_backend* dpo_backend_open(const dpo_host* host);

namespace dpo::bench {
namespace {

template <class T>
void put(std::vector<unsigned char>& memory, std::size_t i, T value) {
  std::memcpy(memory.data() + i * sizeof value, &value, sizeof value);
}

/// f16 and bf16 by the upper bits of a float; a number of f16 comes out as another one.
void put_number(std::vector<unsigned char>& memory, std::size_t i, std::int32_t dtype, float value) {
  if (dtype == DPO_F64) {
    put(memory, i, static_cast<double>(value));
  } else if (dtype == DPO_F32) {
    put(memory, i, value);
  } else {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    put(memory, i, static_cast<std::uint16_t>(bits >> 16));
  }
}

}  // namespace

dpo_tensor Tensors::tensor(const std::vector<std::int64_t>& shape, std::int32_t dtype) {
  dpo_tensor tensor{};
  std::size_t bytes = dtype_size(dtype);
  tensor.rank = static_cast<std::int32_t>(shape.size());
  for (std::size_t axis = 0; axis < shape.size(); ++axis) bytes *= static_cast<std::size_t>(tensor.shape[axis] = shape[axis]);
  memory_.emplace_back(bytes);
  tensor.data = memory_.back().data();
  tensor.dtype = dtype;
  return tensor;
}

dpo_tensor Tensors::input(std::vector<std::int64_t> shape, std::int32_t dtype, double middle) {
  const dpo_tensor made = tensor(shape, dtype);
  std::uint32_t state = ++seed_;
  for (std::size_t i = 0; i < memory_.back().size() / dtype_size(dtype); ++i) {
    state = state * 1664525u + 1013904223u;
    put_number(memory_.back(), i, dtype, static_cast<float>(static_cast<double>(state >> 8) * 0x1p-22 - 2 + middle));
  }
  least_read_ += static_cast<std::int64_t>(memory_.back().size());
  return made;
}

dpo_tensor Tensors::indices(std::int64_t count, std::int64_t step, std::int64_t below) {
  const dpo_tensor made = tensor({count}, DPO_I32);
  for (std::int64_t i = 0; i < count; ++i)
    put(memory_.back(), static_cast<std::size_t>(i), static_cast<std::int32_t>(i * step % below));
  least_read_ += static_cast<std::int64_t>(memory_.back().size());
  return made;
}

dpo_tensor Tensors::result(std::vector<std::int64_t> shape, std::int32_t dtype) {
  const dpo_tensor made = tensor(shape, dtype);
  least_written_ += static_cast<std::int64_t>(memory_.back().size());
  return made;
}

namespace {

using math::Divergence;

dpo_tensor targets_of(Tensors& tensors) { return tensors.indices(tensors.size.rows, 7919, tensors.size.columns); }
std::int32_t result_dtype_of(const Tensors& tensors) { return result_dtype(tensors.size.dtype); }

dpo_status token_log_probs(const dpo_backend& backend, dpo_job& job, Tensors& tensors) {
  dpo_token_log_probs_args args{};
  args.logits = tensors.logits();
  args.targets = targets_of(tensors);
  args.options = {1, 0};
  args.log_probs = tensors.result({tensors.size.rows}, result_dtype_of(tensors));
  args.log_sum_exp = tensors.result({tensors.size.rows}, DPO_F64);
  tensors.elements = tensors.size.rows * tensors.size.columns;
  return backend.token_log_probs(&job, &args);
}

dpo_status token_log_probs_vjp(const dpo_backend& backend, dpo_job& job, Tensors& tensors) {
  dpo_token_log_probs_vjp_args args{};
  args.logits = tensors.logits();
  args.targets = targets_of(tensors);
  args.log_sum_exp = tensors.input({tensors.size.rows}, DPO_F64, 10);
  args.upstream = tensors.input({tensors.size.rows}, DPO_F32);
  args.options = {1, 0};
  args.grad_logits = tensors.result({tensors.size.rows, tensors.size.columns}, tensors.size.dtype);
  tensors.elements = tensors.size.rows * tensors.size.columns;
  return backend.token_log_probs_vjp(&job, &args);
}

dpo_status sequence_log_probs(const dpo_backend& backend, dpo_job& job, Tensors& tensors) {
  constexpr std::int64_t kTokens = 512;
  dpo_sequence_log_probs_args args{};
  args.log_probs = tensors.input({tensors.size.rows * kTokens}, result_dtype_of(tensors));
  args.targets = tensors.indices(tensors.size.rows * kTokens, 7919, tensors.size.columns);
  args.offsets = tensors.indices(tensors.size.rows + 1, kTokens);
  args.options = {DPO_SEQUENCE_SUM, 1};
  args.sequence_log_probs = tensors.result({tensors.size.rows}, result_dtype_of(tensors));
  args.token_counts = tensors.result({tensors.size.rows}, DPO_F64);
  tensors.elements = tensors.size.rows * kTokens;
  return backend.sequence_log_probs(&job, &args);
}

dpo_status preference(const dpo_backend& backend, dpo_job& job, Tensors& tensors) {
  const std::int64_t pairs = 8 * tensors.size.rows;
  const auto dtype = result_dtype_of(tensors);
  dpo_preference_args args{};
  args.policy = tensors.input({2 * pairs}, dtype);
  args.reference = tensors.input({2 * pairs}, dtype);
  args.options.loss_count = 1;
  args.options.losses[0] = {static_cast<std::int32_t>(math::PreferenceLoss::sigmoid), 1};
  args.options.beta = 0.1;
  args.options.bco_count = -1;
  args.losses = tensors.result({pairs}, dtype);
  args.rewards = tensors.result({2 * pairs}, dtype);
  args.grad_policy = tensors.result({2 * pairs}, dtype);
  args.metrics = tensors.result({DPO_METRIC_COUNT}, DPO_F64);
  tensors.elements = pairs;
  return backend.preference(&job, &args);
}

enum class Wanted { value, gradient };

auto divergence(Divergence kind, double parameter, Wanted wanted) {
  return [=](const dpo_backend& backend, dpo_job& job, Tensors& tensors) {
    dpo_divergence_args args{};
    args.policy = tensors.logits();
    args.reference = tensors.logits();
    args.divergence.kind = static_cast<std::int32_t>(kind);
    args.divergence.parameter = parameter;
    args.options = {1, 0};
    args.values = tensors.result({tensors.size.rows}, result_dtype_of(tensors));
    if (wanted == Wanted::gradient) {
      args.upstream = tensors.input({tensors.size.rows}, DPO_F32, 3);
      args.grad_policy = tensors.result({tensors.size.rows, tensors.size.columns}, tensors.size.dtype);
    }
    tensors.elements = tensors.size.rows * tensors.size.columns;
    return backend.divergence(&job, &args);
  };
}

struct Kind {
  const char* name;
  Divergence kind;
  double parameter = 0;
};

constexpr Kind kKinds[] = {
    {"kl", Divergence::kl},
    {"forward_kl", Divergence::forward_kl},
    {"jeffreys", Divergence::jeffreys},
    {"renyi(0.5)", Divergence::renyi, 0.5},
    {"renyi(2)", Divergence::renyi, 2},
    {"bhattacharyya", Divergence::bhattacharyya},
    {"hellinger", Divergence::hellinger},
    {"js", Divergence::js, 0.5},
    {"tv", Divergence::tv},
    {"chi2", Divergence::chi2},
    {"neyman_chi2", Divergence::neyman_chi2},
    {"alpha(0.3)", Divergence::alpha, 0.3},
    {"tsallis(2)", Divergence::tsallis, 2},
};

std::vector<Case> make_cases() {
  std::vector<Case> cases = {
      {"token_log_probs", "value", token_log_probs},
      {"token_log_probs_vjp", "gradient", token_log_probs_vjp},
      {"sequence_log_probs", "sum", sequence_log_probs},
      {"preference", "sigmoid, losses + gradients", preference},
  };
  for (const auto& [name, kind, parameter] : kKinds) {
    cases.push_back({"divergence", std::string(name) + ", value", divergence(kind, parameter, Wanted::value)});
    cases.push_back({"divergence", std::string(name) + ", value + gradient", divergence(kind, parameter, Wanted::gradient)});
  }
  return cases;
}

}  // namespace

const std::vector<Case>& cuda_cases() {
  static const std::vector<Case> cases = make_cases();
  return cases;
}

CountedCase count(const Case& of, const Size& size) {
  Tensors tensors(size);
  dpo_job job;
  simt::begin_traffic();
  CountedCase counted;
  if (of.run(*dpo_backend_open(&host_services()), job, tensors) != DPO_OK) counted.failure = job.status.message;
  counted.launches = simt::end_traffic();
  for (const simt::LaunchTraffic& launch : counted.launches) {
    counted.read += launch.read;
    counted.written += launch.written;
  }
  counted.elements = tensors.elements;
  counted.least_read = tensors.least_read();
  counted.least_written = tensors.least_written();
  return counted;
}

}  // namespace dpo::bench
