#include "native/cpu/linear_head.h"

#include <cstring>
#include <limits>

#include "native/core/dtype.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = std::int64_t{1} << 18;

/// max |x|; NaN or infinite when an element is.
template <class S>
compute_t<S> largest_magnitude(const S* values, std::int64_t count) {
  using T = compute_t<S>;
  Vec<T> largest = {}, poison = {};  // poison stays 0 while every element is finite
  const auto visit = [&](Vec<T> x) {
    largest = max(x < 0 ? -x : x, largest);
    poison += x * T(0);
  };
  std::int64_t i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) visit(load(values + i));
  if (i < count) visit(load_partial(values + i, static_cast<int>(count - i), T(0)));
  return horizontal_max(largest) + horizontal_sum(poison);
}

template <class S>
std::int64_t first_nonfinite(const S* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(to_compute(values[i]))) return i;
  }
  return -1;
}

/// max |x| of the tensor, or the failure of the call.
template <class S>
dpo_status scan(dpo_job* job, const char* prefix, const char* name, const dpo_tensor& tensor, double& largest) {
  largest = 0;
  if (!present(tensor)) return DPO_OK;
  const std::int64_t count = element_count(tensor), chunks = blocks_of(count, kElementsPerChunk);
  auto* partial = allocate<double>(job, chunks);
  if (!partial) return out_of_memory(job);
  const dpo_status status = parallel_for(job, chunks, [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kElementsPerChunk;
    partial[chunk] = static_cast<double>(largest_magnitude(data<S>(tensor) + begin, std::min(kElementsPerChunk, count - begin)));
  });
  if (status != DPO_OK) return status;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (!std::isfinite(partial[chunk])) {
      const std::int64_t begin = chunk * kElementsPerChunk;
      const std::int64_t index = begin + first_nonfinite(data<S>(tensor) + begin, count - begin);
      return fail(job, DPO_ERR_NONFINITE, index, "%s%s: element %lld is not finite", prefix, name, static_cast<long long>(index));
    }
    largest = std::max(largest, partial[chunk]);
  }
  return DPO_OK;
}

void clear(const dpo_tensor& tensor) {
  if (present(tensor)) std::memset(tensor.data, 0, byte_size(tensor));
}

}  // namespace

dpo_status check_head_contents(dpo_job* job, const dpo_linear_head& head, const char* prefix, double* bound) {
  return dispatch_storage(head.hidden.dtype, [&]<class S>() {
    double hidden = 0, weight = 0, bias = 0;
    if (const dpo_status status = scan<S>(job, prefix, "hidden", head.hidden, hidden); status != DPO_OK) return status;
    if (const dpo_status status = scan<S>(job, prefix, "weight", head.weight, weight); status != DPO_OK) return status;
    if (const dpo_status status = scan<S>(job, prefix, "bias", head.bias, bias); status != DPO_OK) return status;
    const double largest = hidden * weight * static_cast<double>(head.hidden.shape[1]) + bias;
    if (bound) *bound = largest;
    if (largest < static_cast<double>(std::numeric_limits<compute_t<S>>::max())) return DPO_OK;
    return fail(job, DPO_ERR_NONFINITE, -1, "%shidden, %sweight: elements of up to %g and %g may make logits that overflow",
                prefix, prefix, hidden, weight);
  });
}

void clear_gradients(const dpo_linear_head_gradients& grads) {
  clear(grads.hidden);
  clear(grads.weight);
  clear(grads.bias);
}

void clear_ignored_rows(const dpo_tensor& targets, const dpo_tensor& grad_hidden) {
  if (!present(targets)) return;
  const std::size_t row_bytes = static_cast<std::size_t>(grad_hidden.shape[1]) * dtype_size(grad_hidden.dtype);
  for (std::int64_t row = 0; row < targets.shape[0]; ++row) {
    if (data<std::int32_t>(targets)[row] != DPO_IGNORED_TARGET) continue;
    std::memset(static_cast<char*>(grad_hidden.data) + static_cast<std::size_t>(row) * row_bytes, 0, row_bytes);
  }
}

}  // namespace dpo::cpu
