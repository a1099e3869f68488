// sin, cos and ln with the same bits on every backend: libraries round them differently. Products that a compiler may or may not
// fuse with sums are written as fma, so that each is rounded where it says so.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "native/math/elementary.h"

namespace dpo::math {

/// horner of elementary.h with its sums fused.
template <std::size_t N>
DPO_HD_INLINE double fused_horner(double x, const double (&coefficients)[N]) {
  double sum = coefficients[0];
  DPO_UNROLL
  for (std::size_t i = 1; i < N; ++i) sum = std::fma(sum, x, coefficients[i]);
  return sum;
}

/// ln x, x positive and normal, to an ulp. Its polynomial is that of fdlibm (Sun Microsystems, 1993).
DPO_HD inline double natural_log(double x) {
  constexpr double kLow = 0.70710678118654752, kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr double kTerms[] = {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
                               2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
                               6.666666666666735130e-01};
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  auto exponent = static_cast<int>(bits >> 52) - 1022;
  bits = (bits & 0x000fffffffffffffu) | 0x3fe0000000000000u;
  double mantissa = 0;
  std::memcpy(&mantissa, &bits, sizeof bits);
  if (mantissa < kLow) {
    mantissa *= 2;
    --exponent;
  }
  // ln(1 + f) = f − (f²/2 − s·(f²/2 + s²·P(s²))), s = f/(2 + f).
  const double k = exponent, f = mantissa - 1, half = 0.5 * f, s = f / (2 + f), z = s * s;
  const double square = half * f;
  const double corrected = std::fma(s, std::fma(z, fused_horner(z, kTerms), square), k * kLn2Low);
  return std::fma(k, kLn2High, f - std::fma(half, f, -corrected));
}

/// x = (quadrant + a multiple of 4)·π/2 + rest, |rest| ≤ π/4.
struct ReducedAngle {
  double rest;
  unsigned quadrant;
};

namespace detail {

/// Cody & Waite (1980): π/2 in three parts. |x| < 2³⁰.
DPO_HD inline ReducedAngle reduce_angle(double x) {
  const double k = std::rint(x * 0.63661977236758138);
  double rest = std::fma(-k, 0x1.921fb54442d18p+0, x);
  rest = std::fma(-k, 0x1.1a62633145c07p-54, rest);
  rest = std::fma(-k, -0x1.f1976b7ed8fbcp-110, rest);
  return {rest, static_cast<unsigned>(static_cast<std::int32_t>(k)) & 3u};
}

/// 64 bits of 2/π; word 0 is before the point.
DPO_HD inline std::uint64_t bits_of_two_over_pi(int word) {
  static constexpr std::uint64_t kWords[] = {0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041,
                                             0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e,
                                             0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b,
                                             0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
                                             0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab};
  return kWords[word];
}

/// Payne & Hanek (1983): x·2/π modulo 4, by 192 bits of 2/π from the first one that does not give multiples of 4. x ≥ 2³⁰.
DPO_HD inline ReducedAngle reduce_large_angle(double x) {
  using Wide = unsigned __int128;
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  // x = mantissa·2^exponent.
  const std::uint64_t mantissa = (bits & 0x000fffffffffffffu) | 0x0010000000000000u;
  const int exponent = static_cast<int>(bits >> 52 & 0x7ffu) - 1075, first = 64 + exponent - 2, word = first / 64,
            shift = first % 64;
  const auto window = [=](int i) {
    const std::uint64_t high = bits_of_two_over_pi(word + i) << shift;
    return shift == 0 ? high : high | bits_of_two_over_pi(word + i + 1) >> (64 - shift);
  };
  const Wide low = Wide{mantissa} * window(2), middle = Wide{mantissa} * window(1) + static_cast<std::uint64_t>(low >> 64);
  const std::uint64_t high = mantissa * window(0) + static_cast<std::uint64_t>(middle >> 64);
  // Two bits before the point.
  auto quadrant = static_cast<unsigned>(high >> 62);
  Wide fraction = (Wide{high} << 64 | static_cast<std::uint64_t>(middle)) << 2;
  const bool up = (fraction >> 127) != 0;
  if (up) {
    ++quadrant;
    fraction = Wide{0} - fraction;
  }
  int zeros = 0;
  while (zeros < 64 && (fraction >> 127) == 0) {
    fraction <<= 1;
    ++zeros;
  }
  const double size =
      std::ldexp(static_cast<double>(static_cast<std::uint64_t>(fraction >> 64)) * 1.5707963267948966, -64 - zeros);
  return {up ? -size : size, quadrant & 3u};
}

}  // namespace detail

struct SinCos {
  double sin, cos;
};

/// To three ulps; NaN of infinities.
DPO_HD inline SinCos sin_cos(double x) {
  // fdlibm's, for up to π/4.
  constexpr double kSin[] = {1.58969099521155010221e-10,  -2.50507602534068634195e-08, 2.75573137070700676789e-06,
                             -1.98412698298579493134e-04, 8.33333333332248946124e-03,  -1.66666666666666324348e-01};
  constexpr double kCos[] = {-1.13596475577881948265e-11, 2.08757232129817482790e-09,  -2.75573143513906633035e-07,
                             2.48015872894767294178e-05,  -1.38888888888741095749e-03, 4.16666666666666019037e-02};
  constexpr double kLarge = 0x1p30;
  const double size = std::fabs(x);
  if (!(size <= std::numeric_limits<double>::max())) return {x - x, x - x};
  const ReducedAngle angle = size < kLarge ? detail::reduce_angle(size) : detail::reduce_large_angle(size);
  const double r = angle.rest, z = r * r, cube = z * r, half = 0.5 * z, one = 1 - half;
  const double s = std::fma(cube, fused_horner(z, kSin), r);
  const double square = z * z;
  const double c = one + std::fma(square, fused_horner(z, kCos), (1 - one) - half);
  const double sine = (angle.quadrant & 1u) != 0 ? c : s, cosine = (angle.quadrant & 1u) != 0 ? s : c;
  const bool negative_sine = (angle.quadrant & 2u) != 0, negative_cosine = ((angle.quadrant + 1) & 2u) != 0;
  return {negative_sine != std::signbit(x) ? -sine : sine, negative_cosine ? -cosine : cosine};
}

}  // namespace dpo::math
