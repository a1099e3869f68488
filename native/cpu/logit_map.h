// From raw logits z to the logits z' of the softmax: z' = softcap·tanh(z/softcap)/temperature, and dz'/dz.
#pragma once

#include <cmath>
#include <limits>

#include "native/core/token_log_probs.h"
#include "native/cpu/simd.h"
#include "native/math/logit_map.h"

namespace dpo::cpu {

/// tanh of each lane. In float by (1 − e^−2|x|)/(1 + e^−2|x|), and by its series where that would cancel.
template <class T>
[[gnu::always_inline]] inline Vec<T> tanh(Vec<T> x) {
  if constexpr (std::same_as<T, double>) {
    for (int lane = 0; lane < lanes<T>; ++lane) x[lane] = std::tanh(x[lane]);
    return x;
  } else {
    const Vec<T> magnitude = x < 0 ? -x : x;
    const Vec<T> e = exp(T(-2) * magnitude);
    const Vec<T> far = (T(1) - e) / (T(1) + e);
    const Vec<T> s = x * x;
    const Vec<T> near = magnitude * (T(1) + s * (T(-1.0 / 3) + s * (T(2.0 / 15) + s * (T(-17.0 / 315) + s * T(62.0 / 2835)))));
    const Vec<T> value = magnitude < T(0.25) ? near : far;
    return x < 0 ? -value : value;
  }
}

// A map has two steps, capped(z) = softcap·tanh(z/softcap) and scaled(d) = d/temperature, because the softmax subtracts its
// maximum in between: z/temperature of logits around 1e4 would lose in float what the subtraction leaves exact. slope(capped) is
// dz'/dz.

template <class T>
struct PlainLogits {
  static constexpr bool caps = false;
  double factor = 1;  // of scaled()
  Vec<T> capped(Vec<T> z) const { return z; }
  Vec<T> scaled(Vec<T> d) const { return d; }
  Vec<T> slope(Vec<T>) const { return broadcast(T(1)); }
};

template <class T>
struct ScaledLogits {
  static constexpr bool caps = false;
  double factor;
  T scale = static_cast<T>(factor);
  Vec<T> capped(Vec<T> z) const { return z; }
  Vec<T> scaled(Vec<T> d) const { return d * scale; }
  Vec<T> slope(Vec<T>) const { return broadcast(scale); }
};

template <class T>
struct CappedLogits {
  static constexpr bool caps = true;
  double factor;
  T cap;
  T scale = static_cast<T>(factor);
  /// +inf stays what it is, so that it is found out: its tanh would look like any large logit's.
  Vec<T> capped(Vec<T> z) const { return select(z < std::numeric_limits<T>::infinity(), tanh<T>(z / cap) * cap, z); }
  Vec<T> scaled(Vec<T> d) const { return d * scale; }
  Vec<T> slope(Vec<T> capped) const { return math::capped_slope(capped, cap, scale); }
  Vec<T> capped_difference(Vec<T> x, Vec<T> y, Vec<T> capped_x, Vec<T> capped_y) const {
    return math::capped_difference(
        x, y, capped_x, capped_y, cap, [](Vec<T> a) __attribute__((always_inline)) { return tanh<T>(a); });
  }
};

/// Calls f(map) with the cheapest map that does what the options ask for.
template <class T, class F>
auto with_logit_map(const dpo_logit_options& options, F&& f) {
  const double factor = 1 / options.temperature;
  if (options.softcap > 0) return f(CappedLogits<T>{factor, static_cast<T>(options.softcap)});
  if (factor != 1) return f(ScaledLogits<T>{factor});
  return f(PlainLogits<T>{});
}

/// z' of one logit, in double.
template <class T, class Map>
double map_logit(const Map& map, T z) {
  return static_cast<double>(map.capped(broadcast(z))[0]) * map.factor;
}

}  // namespace dpo::cpu
