#include "native/cuda/gram_call.h"

#include "native/cuda/logit_check.h"
#include "native/cuda/grid.h"

namespace dpo::cuda {
namespace {

__global__ void divide(double* sums, std::int64_t count, double by) {
  for_each_index(count, [&](std::int64_t i) { sums[i] /= by; });
}

template <class U>
__global__ void find_nonfinite(const U* values, std::int64_t count, unsigned long long* first) {
  for_each_index(count, [&](std::int64_t i) {
    if (!std::isfinite(values[i])) atomicMin(first, static_cast<unsigned long long>(i));
  });
}

}  // namespace

template <class S>
bool GramCall<S>::prepare(bool gradient) {
  if (!x_.measure() || (y_ && !y_->measure())) return false;
  const double* mean = plan_.centred ? rows_mean() : nullptr;
  return x_.map(mean, gradient) && (!y_ || y_->map(mean, gradient));
}

template <class S>
const double* GramCall<S>::rows_mean() const {
  auto* mean = call_.allocate<double>(plan_.depth);
  call_.fill(mean, 0, static_cast<std::size_t>(plan_.depth) * sizeof *mean);
  x_.add_sums(mean);
  if (y_) y_->add_sums(mean);
  const double count = static_cast<double>(x_.count() + (y_ ? y_->count() : 0));
  call_.launch(divide, grid_of(plan_.depth), mean, plan_.depth, count);
  return mean;
}

bool check_finite(Call& call, const char* name, const dpo_tensor& tensor) {
  unsigned long long* first = first_bad_row(call);
  const std::int64_t count = element_count(tensor);
  if (tensor.dtype == DPO_F64) {
    call.launch(find_nonfinite<double>, passes(count), call.input<double>(tensor), count, first);
  } else {
    call.launch(find_nonfinite<float>, passes(count), call.input<float>(tensor), count, first);
  }
  const unsigned long long found = call.read(first);
  if (!call.ok() || found == kNoRow) return call.ok();
  const auto index = static_cast<long long>(found);
  call.fail_at(index, DPO_ERR_NONFINITE, "%s: element %lld is not finite", name, index);
  return false;
}

template class GramCall<float>;
template class GramCall<double>;
template class GramCall<__half>;
template class GramCall<__nv_bfloat16>;

}  // namespace dpo::cuda
