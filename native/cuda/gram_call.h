// What every operation on Gram matrices starts from: the plan, and both sides' rows mapped.
#pragma once

#include <optional>

#include "native/cuda/gram_pairs.h"

namespace dpo::cuda {

template <class S>
class GramCall {
 public:
  using T = compute_t<S>;

  GramCall(Call& call, const dpo_gram_rows& of)
      : call_(call), plan_(of), members_(call, of.kernel, plan_.depth), x_(call, plan_, members_, "x", of.x) {
    if (present(of.y)) y_.emplace(call, plan_, members_, "y", of.y);
  }
  GramCall(const GramCall&) = delete;
  GramCall& operator=(const GramCall&) = delete;

  /// Checks and maps the rows. Without y, x serves as both. False when the call has failed.
  bool prepare(bool gradient);

  const GramPlan& plan() const { return plan_; }
  const KernelMembers& members() const { return members_; }
  GramPairs<T> pairs_of_x() const { return pairs_of(x_, x_, true); }
  GramPairs<T> pairs_of_y() const { return pairs_of(*y_, *y_, true); }
  GramPairs<T> pairs() const { return y_ ? pairs_of(x_, *y_, false) : pairs_of_x(); }
  /// y against x.
  GramPairs<T> transposed_pairs() const { return y_ ? pairs_of(*y_, x_, false) : pairs_of_x(); }

  /// Room on the device for the sums of parameter gradients, at 0.
  double* zero_sums() const {
    auto* sums = call_.allocate<double>(members_.places().size);
    call_.fill(sums, 0, static_cast<std::size_t>(members_.places().size) * sizeof *sums);
    return sums;
  }

  /// Takes the gradients of mapped rows back; the host's copy of the sums is then complete.
  std::vector<double> pull_back(const dpo_gram_gradients& grads, double* sums) const {
    x_.pull_back(grads.x, sums);
    if (y_) y_->pull_back(grads.y, sums);
    return call_.read(sums, members_.places().size);
  }

  void write_parameters(const std::vector<double>& sums, const dpo_kernel_gradients& grads) const {
    write_kernel_gradients(members_.places(), members_.weights(), sums.data(), 0, grads);
  }

 private:
  GramPairs<T> pairs_of(const GramRows<S>& left, const GramRows<S>& right, bool same) const {
    return {&plan_, &members_, &left.mapped(), &right.mapped(), same};
  }
  const double* rows_mean() const;

  Call& call_;
  GramPlan plan_;
  KernelMembers members_;
  GramRows<S> x_;
  std::optional<GramRows<S>> y_;
};

/// Ends the call because of the first element of an f32 or f64 tensor that is not finite; false if it has.
bool check_finite(Call& call, const char* name, const dpo_tensor& tensor);

extern template class GramCall<float>;
extern template class GramCall<double>;
extern template class GramCall<__half>;
extern template class GramCall<__nv_bfloat16>;

}  // namespace dpo::cuda
