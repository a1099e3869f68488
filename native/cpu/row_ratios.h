// From two rows of logits, x of the policy and y of the reference, to the points of their distributions.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "native/cpu/logit_map.h"
#include "native/cpu/softmax_row.h"
#include "native/math/divergences.h"
#include "native/math/softmax_ratios.h"

namespace dpo::cpu {

/// Elementary functions of vectors, as the functors of native/math want them.
template <class T>
struct VectorElementary {
  using Scalar = T;
  [[gnu::always_inline]] static Vec<T> exp(Vec<T> x) { return cpu::exp(x); }
  [[gnu::always_inline]] static Vec<T> probability(Vec<T> x) { return cpu::exp_no_overflow(x); }
  [[gnu::always_inline]] static Vec<T> min(Vec<T> a, Vec<T> b) { return cpu::min(a, b); }
  [[gnu::always_inline]] static Vec<T> max(Vec<T> a, Vec<T> b) { return cpu::max(a, b); }
  [[gnu::always_inline]] static Vec<T> abs(Vec<T> x) { return cpu::abs(x); }
  [[gnu::always_inline]] static Vec<T> log1p(Vec<T> x) { return cpu::log1p(x); }
  [[gnu::always_inline]] static Vec<T> quotient(Vec<T> a, Vec<T> b) { return cpu::quotient(a, b); }
  [[gnu::always_inline]] static math::ExpParts<Vec<T>> exp_parts(Vec<T> x) { return cpu::exp_parts(x); }
};

using math::Normalizers;

/// The points of two rows, in vectors.
template <class S, class Ratios>
class RowRatios {
 public:
  using T = compute_t<S>;

  RowRatios(const S* x, const S* y, const Ratios& ratios) : x_(x), y_(y), ratios_(ratios) {}

  template <class N>
  [[gnu::always_inline]] math::LogRatio<Vec<T>> at(std::int64_t i, N n) const {
    __builtin_prefetch(x_ + i + kLookAhead / sizeof(S));
    __builtin_prefetch(y_ + i + kLookAhead / sizeof(S));
    math::LogRatio<Vec<T>> r = ratios_.at(load_lanes(x_ + i, n), load_lanes(y_ + i, n));
    if constexpr (!std::is_same_v<N, AllLanes<T>>) clear_beyond(n, r);
    return r;
  }

 private:
  /// Lanes past the end of the row have no mass.
  static void clear_beyond(int n, math::LogRatio<Vec<T>>& r) {
    for (Vec<T>* log_mass : {&r.lp, &r.lq}) *log_mass = first_lanes(*log_mass, n, -std::numeric_limits<T>::infinity());
    r.t = first_lanes(r.t, n, T(0));
  }

  const S* x_;
  const S* y_;
  Ratios ratios_;
};

}  // namespace dpo::cpu
