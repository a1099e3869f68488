// The element types a tensor can hold, and the type each one is computed in.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>

#include "native/core/tensor.h"

namespace dpo::cpu {

struct bf16 {
  std::uint16_t bits;
};

struct f16 {
  std::uint16_t bits;
};

namespace detail {

template <class S>
struct ComputeType;
template <>
struct ComputeType<float> {
  using type = float;
};
template <>
struct ComputeType<bf16> {
  using type = float;
};
template <>
struct ComputeType<f16> {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};

// The conversions below are written once for scalars (U = uint32_t, F = float) and for vectors of them: a comparison followed by
// ?: means "if" for the one and a lane-wise choice for the other.

template <class F, class U>
inline F float_from_bf16_bits(U half) {
  return std::bit_cast<F>(half << 16);
}

template <class U, class F>
inline U bf16_bits_from_float(F value) {
  const U bits = std::bit_cast<U>(value);
  const U rounded = (bits + (((bits >> 16) & 1u) + 0x7fffu)) >> 16;
  // Rounding could carry a NaN into infinity, so a NaN is truncated and made quiet instead.
  const U quiet = (bits >> 16) | 0x40u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
}

template <class F, class U>
inline F float_from_f16_bits(U half) {
  const U sign = (half & 0x8000u) << 16;
  const U shifted = (half & 0x7fffu) << 13;
  const U exponent = shifted & 0x0f800000u;
  const U normal = shifted + (112u << 23);
  const U special = shifted + (224u << 23);
  const U finite = exponent == 0x0f800000u ? special : normal;
  // A denormal half is a normal float: build it with an implicit one, then subtract that one.
  const U one = (shifted & 0u) + (113u << 23);
  const U denormal = std::bit_cast<U>(std::bit_cast<F>(shifted + one) - std::bit_cast<F>(one));
  return std::bit_cast<F>((exponent == 0u ? denormal : finite) | sign);
}

template <class U, class F>
inline U f16_bits_from_float(F value) {
  const U bits = std::bit_cast<U>(value);
  const U sign = (bits >> 16) & 0x8000u;
  const U magnitude = bits & 0x7fffffffu;
  const U infinity = (bits & 0u) + 0x7c00u;
  const U nan = (bits & 0u) + 0x7e00u;
  const U too_large = magnitude > 0x7f800000u ? nan : infinity;
  // Adding this power of two makes the float adder round at the last bit of a denormal half.
  const U magic = (bits & 0u) + 0x3f000000u;
  const U denormal = std::bit_cast<U>(std::bit_cast<F>(magnitude) + std::bit_cast<F>(magic)) - magic;
  const U normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const U in_range = magnitude < (113u << 23) ? denormal : normal;
  return (magnitude >= (143u << 23) ? too_large : in_range) | sign;
}

}  // namespace detail

/// The type that values stored as S are computed in: float for float, bf16 and f16, double for double.
template <class S>
using compute_t = typename detail::ComputeType<S>::type;

template <class S>
concept Storage = requires {
  typename detail::ComputeType<S>::type;
};

/// The value of one stored element.
template <Storage S>
inline compute_t<S> to_compute(S stored) {
  if constexpr (std::same_as<S, bf16>) {
    return detail::float_from_bf16_bits<float>(std::uint32_t{stored.bits});
  } else if constexpr (std::same_as<S, f16>) {
    return detail::float_from_f16_bits<float>(std::uint32_t{stored.bits});
  } else {
    return stored;
  }
}

/// One element as it is stored: round to nearest, ties to even; NaN stays NaN.
template <Storage S>
inline S to_storage(compute_t<S> value) {
  if constexpr (std::same_as<S, bf16>) {
    return bf16{static_cast<std::uint16_t>(detail::bf16_bits_from_float<std::uint32_t>(value))};
  } else if constexpr (std::same_as<S, f16>) {
    return f16{static_cast<std::uint16_t>(detail::f16_bits_from_float<std::uint32_t>(value))};
  } else {
    return value;
  }
}

/// Calls f.template operator()<S>() for the storage type of a floating dpo_dtype.
template <class F>
auto dispatch_storage(std::int32_t dtype, F&& f) {
  switch (dtype) {
    case DPO_F64:
      return f.template operator()<double>();
    case DPO_F16:
      return f.template operator()<f16>();
    case DPO_BF16:
      return f.template operator()<bf16>();
    default:
      return f.template operator()<float>();
  }
}

}  // namespace dpo::cpu
