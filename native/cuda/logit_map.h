// From raw logits z to the logits z' of the softmax: z' = softcap·tanh(z/softcap)/temperature, and dz'/dz.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <limits>

#include "native/core/token_log_probs.h"
#include "native/math/logit_map.h"

namespace dpo::cuda {

/// Two steps, capped(z) and scaled(d) = d/temperature, because the softmax subtracts its maximum in between: z/temperature of
/// logits around 1e4 would lose in float what the subtraction leaves exact.
template <class T, bool kCaps>
struct LogitMap {
  double factor;
  T scale, cap;

  explicit LogitMap(const dpo_logit_options& options)
      : factor(1 / options.temperature), scale(static_cast<T>(factor)), cap(static_cast<T>(options.softcap)) {}

  /// +inf stays what it is, so that it is found out: its tanh would look like any large logit's.
  __device__ __forceinline__ T capped(T z) const {
    if constexpr (kCaps) return z < std::numeric_limits<T>::infinity() ? std::tanh(z / cap) * cap : z;
    return z;
  }
  __device__ __forceinline__ T scaled(T d) const { return d * scale; }
  __device__ __forceinline__ T slope(T capped_z) const {
    if constexpr (kCaps) return math::capped_slope(capped_z, cap, scale);
    return scale;
  }
  /// z' of one logit, in double.
  __device__ __forceinline__ double mapped(T z) const { return static_cast<double>(capped(z)) * factor; }
};

/// The map of any options, for kernels that are many already.
template <class T>
struct AnyLogitMap {
  bool caps;
  double factor;
  LogitMap<T, true> capping;

  explicit AnyLogitMap(const dpo_logit_options& options)
      : caps(options.softcap > 0), factor(1 / options.temperature), capping(options) {}

  __device__ __forceinline__ T capped(T z) const { return caps ? capping.capped(z) : z; }
  __device__ __forceinline__ T scaled(T d) const { return capping.scaled(d); }
  __device__ __forceinline__ T slope(T capped_z) const { return caps ? capping.slope(capped_z) : capping.scale; }
  __device__ __forceinline__ double mapped(T z) const { return static_cast<double>(capped(z)) * factor; }
  __device__ __forceinline__ T capped_difference(T x, T y, T capped_x, T capped_y) const {
    return math::capped_difference(x, y, capped_x, capped_y, capping.cap, [](T a) { return std::tanh(a); });
  }
};

/// Calls f(map) with the map that the options ask for.
template <class T, class F>
auto with_logit_map(const dpo_logit_options& options, const F& f) {
  if (options.softcap > 0) return f(LogitMap<T, true>(options));
  return f(LogitMap<T, false>(options));
}

}  // namespace dpo::cuda
