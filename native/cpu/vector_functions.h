#pragma once

#include <cmath>

#include "native/cpu/simd.h"

namespace dpo::cpu {

/// Elementary functions of full vectors, for the formulas of native/math.
template <class T>
struct VectorFunctions {
  using Scalar = T;
  using V = Vec<T>;
  [[gnu::always_inline]] static V exp(V x) { return cpu::exp(x); }
  [[gnu::always_inline]] static V log(V x) { return cpu::log(x); }
  [[gnu::always_inline]] static V log1p(V x) { return cpu::log1p(x); }
  [[gnu::always_inline]] static V sqrt(V x) { return cpu::sqrt(x); }
  static V cos(V x) {
    for (int i = 0; i < lanes<T>; ++i) x[i] = std::cos(x[i]);
    return x;
  }
  static V sin(V x) {
    for (int i = 0; i < lanes<T>; ++i) x[i] = std::sin(x[i]);
    return x;
  }
};

}  // namespace dpo::cpu
