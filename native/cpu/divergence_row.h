// A divergence of one pair of rows, whatever its kind: what divergence and linear_divergence call for every row.
#pragma once

#include <cstdint>
#include <memory>

#include "native/core/divergence.h"
#include "native/cpu/storage.h"
#include "native/math/divergence_points.h"

namespace dpo::cpu {

using math::RowState;

struct RowOutcome {
  RowState state;
  double value;
};

/// What a first look at both rows has found.
struct RowSums {
  math::RowMoments moments;
  RowState state;  // finite or bad
  bool sure;       // that value and gradient will be finite
};

/// Where the gradient upstream·dD/dx + target_upstream·d ln p[target]/dx goes.
template <class S>
struct RowGradient {
  S* to;
  double upstream;
  double target_upstream;
  std::int64_t target;  // of a row whose target_upstream is not 0
  bool streamed;        // around the caches
};

template <class S>
class DivergenceRow {
 public:
  using T = compute_t<S>;

  virtual ~DivergenceRow() = default;

  /// Elements of working memory that gradient() needs, in units of T.
  virtual std::int64_t scratch_size() const = 0;

  /// The first look at logits x of the policy and y of the reference. What follows is for rows that it found good.
  virtual RowSums sums(const S* x, const S* y, T* scratch) const = 0;

  /// D of row number `row`.
  virtual RowOutcome value(const S* x, const S* y, std::int64_t row, const RowSums& sums, T* scratch) const = 0;

  /// The same with the gradient, which is written only when the outcome is finite or `upstream` is 0. It may take the place of x.
  virtual RowOutcome gradient(const S* x, const S* y, std::int64_t row, const RowSums& sums, const RowGradient<S>& gradient,
                              T* scratch) const = 0;

  /// The first look and gradient() in one: what the first computes may stay in working memory for the second.
  virtual RowOutcome whole_gradient(const S* x, const S* y, std::int64_t row, const RowGradient<S>& gradient, T* scratch) const {
    const RowSums found = sums(x, y, scratch);
    return found.state == RowState::finite ? this->gradient(x, y, row, found, gradient, scratch) : RowOutcome{found.state, 0};
  }

  /// A row of finite logits whose differences x − y span at most this is sure to have a finite divergence and gradient.
  virtual double safe_range() const = 0;
};

/// Rows of `columns` logits.
template <class S>
std::unique_ptr<DivergenceRow<S>> make_divergence_row(const dpo_divergence_kind& divergence, const dpo_logit_options& options,
                                                      std::int64_t columns, const dpo_tensor& generator_values,
                                                      const dpo_tensor& generator_slopes);

}  // namespace dpo::cpu
