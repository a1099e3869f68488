// Vectors of the widest size that the instruction set of this build has, on GCC's vector extensions: +, -, *, / and comparisons
// are the built-in operators. This is the only file of the backend that asks which instruction set it is compiled for.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "native/cpu/storage.h"
#include "native/math/elementary.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dpo::cpu {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define DPO_SIMD_AVX512 1
inline constexpr int kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kVectorRegisters = 16;
#else
inline constexpr int kVectorBytes = 16;
#if defined(__x86_64__)
inline constexpr int kVectorRegisters = 16;
#else
inline constexpr int kVectorRegisters = 32;
#endif
#endif

namespace detail {

template <class T, int N>
struct PackType {
  typedef T type __attribute__((vector_size(static_cast<std::size_t>(N) * sizeof(T))));
};

}  // namespace detail

/// N values of type T in one vector (N a power of two, at least 2).
template <class T, int N>
using Pack = typename detail::PackType<T, N>::type;

/// How many values of the compute type T one full vector holds.
template <class T>
inline constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(T));

/// The full vector of T = float or double.
template <class T>
using Vec = Pack<T, lanes<T>>;

/// What a comparison of two Vec<T> gives: all bits set where true.
template <class T>
using Mask = decltype(Vec<T>{} < Vec<T>{});

namespace detail {

template <class V>
using Element = std::remove_cvref_t<decltype(std::declval<V&>()[0])>;

template <class V>
inline constexpr int pack_size = static_cast<int>(sizeof(V) / sizeof(Element<V>));

template <int N, class S>
[[gnu::always_inline]] inline Pack<compute_t<S>, N> convert_from_bits(Pack<std::uint16_t, N> bits) {
  using Wide = Pack<std::uint32_t, N>;
  if constexpr (std::same_as<S, bf16>) {
#if defined(DPO_SIMD_AVX512)
    // GCC 12 widens 16 lanes in two halves.
    if constexpr (N == 16) {
      return std::bit_cast<Pack<float, N>>(std::bit_cast<Wide>(_mm512_maskz_cvtepu16_epi32(0xffff, std::bit_cast<__m256i>(bits)))
                                           << 16);
    }
#endif
    return float_from_bf16_bits<Pack<float, N>>(__builtin_convertvector(bits, Wide));
  } else {
#if defined(DPO_SIMD_AVX512)
    if constexpr (N == 16) {
      return _mm512_maskz_cvtph_ps(0xffff, std::bit_cast<__m256i>(bits));
    }
#endif
#if defined(__F16C__)
    if constexpr (N == 8) {
      return _mm256_cvtph_ps(std::bit_cast<__m128i>(bits));
    }
#endif
    return float_from_f16_bits<Pack<float, N>>(__builtin_convertvector(bits, Wide));
  }
}

template <class S, class V>
[[gnu::always_inline]] inline Pack<std::uint16_t, pack_size<V>> convert_to_bits(V values) {
  constexpr int N = pack_size<V>;
  using Wide = Pack<std::uint32_t, N>;
  using Narrow = Pack<std::uint16_t, N>;
  if constexpr (std::same_as<S, bf16>) {
    return __builtin_convertvector(bf16_bits_from_float<Wide>(values), Narrow);
  } else {
#if defined(DPO_SIMD_AVX512)
    if constexpr (N == 16) {
      return std::bit_cast<Narrow>(_mm512_maskz_cvtps_ph(0xffff, values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
#endif
#if defined(__F16C__)
    if constexpr (N == 8) {
      return std::bit_cast<Narrow>(_mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
#endif
    return __builtin_convertvector(f16_bits_from_float<Wide>(values), Narrow);
  }
}

/// N stored values as a vector of the compute type, from any address.
template <int N, Storage S>
[[gnu::always_inline]] inline Pack<compute_t<S>, N> load_pack(const S* from) {
  if constexpr (sizeof(S) == 2) {
    Pack<std::uint16_t, N> bits;
    std::memcpy(&bits, from, sizeof(bits));
    return convert_from_bits<N, S>(bits);
  } else {
    Pack<S, N> values;
    std::memcpy(&values, from, sizeof(values));
    return values;
  }
}

}  // namespace detail

template <class T>
[[gnu::always_inline]] inline Vec<T> broadcast(T value) {
  // Subtracting zero keeps every value, -0 too, and so costs nothing.
  return value - Vec<T>{};
}

/// lanes<compute_t<S>> stored values, from any address.
template <Storage S>
[[gnu::always_inline]] inline Vec<compute_t<S>> load(const S* from) {
  return detail::load_pack<lanes<compute_t<S>>>(from);
}

/// The first n values (0 <= n <= lanes), and fill in the other lanes. Memory after the n values is not touched.
template <Storage S>
[[gnu::always_inline]] inline Vec<compute_t<S>> load_partial(const S* from, int n, compute_t<S> fill) {
  using T = compute_t<S>;
#if defined(DPO_SIMD_AVX512)
  const auto mask = (1u << n) - 1u;
  if constexpr (std::same_as<S, float>) {
    return _mm512_mask_loadu_ps(broadcast(fill), static_cast<__mmask16>(mask), from);
  } else if constexpr (std::same_as<S, double>) {
    return _mm512_mask_loadu_pd(broadcast(fill), static_cast<__mmask8>(mask), from);
  } else {
    const auto bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), from);
    const Vec<T> values = detail::convert_from_bits<lanes<T>, S>(std::bit_cast<Pack<std::uint16_t, lanes<T>>>(bits));
    return _mm512_mask_mov_ps(broadcast(fill), static_cast<__mmask16>(mask), values);
  }
#else
  Vec<T> values = broadcast(fill);
  for (int i = 0; i < lanes<T>; ++i) {
    if (i < n) {
      values[i] = to_compute(from[i]);
    }
  }
  return values;
#endif
}

/// The first n lanes of x, and fill in the others.
template <class V>
[[gnu::always_inline]] inline V first_lanes(V x, int n, detail::Element<V> fill) {
  for (int lane = n; lane < detail::pack_size<V>; ++lane) x[lane] = fill;
  return x;
}

/// Rounds to the storage type (nearest, ties to even) and writes lanes values to any address.
template <Storage S>
[[gnu::always_inline]] inline void store(S* to, Vec<compute_t<S>> values) {
  if constexpr (sizeof(S) == 2) {
    const auto bits = detail::convert_to_bits<S>(values);
    std::memcpy(to, &bits, sizeof(bits));
  } else {
    std::memcpy(to, &values, sizeof(values));
  }
}

/// Writes the first n values (0 <= n <= lanes).
template <Storage S>
[[gnu::always_inline]] inline void store_partial(S* to, int n, Vec<compute_t<S>> values) {
#if defined(DPO_SIMD_AVX512)
  const auto mask = (1u << n) - 1u;
  if constexpr (std::same_as<S, float>) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), values);
  } else if constexpr (std::same_as<S, double>) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), values);
  } else {
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>(mask), std::bit_cast<__m256i>(detail::convert_to_bits<S>(values)));
  }
#else
  for (int i = 0; i < lanes<compute_t<S>>; ++i) {
    if (i < n) {
      to[i] = to_storage<S>(values[i]);
    }
  }
#endif
}

/// Store for results that will not be read again soon: goes around the caches. The address must be a multiple of lanes *
/// sizeof(S) bytes. Call stream_fence() before another thread is told that the data is there.
template <Storage S>
[[gnu::always_inline]] inline void stream(S* to, Vec<compute_t<S>> values) {
#if defined(__x86_64__)
  auto write = [to](auto data) __attribute__((always_inline)) {
#if defined(DPO_SIMD_AVX512)
    if constexpr (sizeof(data) == 64) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), std::bit_cast<__m512i>(data));
    }
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(data) == 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), std::bit_cast<__m256i>(data));
    }
#endif
    if constexpr (sizeof(data) == 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to), std::bit_cast<__m128i>(data));
    } else if constexpr (sizeof(data) == 8) {
      _mm_stream_si64(reinterpret_cast<long long*>(to), std::bit_cast<long long>(data));
    }
  };
  if constexpr (sizeof(S) == 2) {
    write(detail::convert_to_bits<S>(values));
  } else {
    write(values);
  }
#else
  store(to, values);
#endif
}

/// Makes earlier stream() stores of this thread visible before its later stores.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

/// While it lives, numbers below the smallest normal one count as 0 on this thread: some processors take a hundred times as long
/// over them, and gradients that fade are full of them.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kSubnormalsAreZero); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
#else
  FlushSubnormals() = default;
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

#if defined(__x86_64__)
 private:
  static constexpr unsigned kFlushToZero = 0x8000, kSubnormalsAreZero = 0x0040;
  unsigned before_;
#endif
};

/// a where the mask is set, else b.
template <class M, class V>
[[gnu::always_inline]] inline V select(M mask, V a, V b) {
  return mask ? a : b;
}

/// |x|.
template <class V>
[[gnu::always_inline]] inline V abs(V x) {
  using Bits = Mask<detail::Element<V>>;
  return std::bit_cast<V>(std::bit_cast<Bits>(x) & std::numeric_limits<std::remove_cvref_t<decltype(Bits{}[0])>>::max());
}

/// a > b ? a : b in each lane, so b when either is NaN: write max(bound, x) to let a NaN in x through.
template <class V>
[[gnu::always_inline]] inline V max(V a, V b) {
#if defined(DPO_SIMD_AVX512)
  // The maskz_ forms compile to the plain instruction; the plain intrinsics make GCC 12 warn about their own undefined operand.
  if constexpr (std::same_as<V, Vec<float>>) {
    return _mm512_maskz_max_ps(0xffff, a, b);
  } else {
    return _mm512_maskz_max_pd(0xff, a, b);
  }
#else
  return a > b ? a : b;
#endif
}

/// a < b ? a : b in each lane, so b when either is NaN.
template <class V>
[[gnu::always_inline]] inline V min(V a, V b) {
#if defined(DPO_SIMD_AVX512)
  if constexpr (std::same_as<V, Vec<float>>) {
    return _mm512_maskz_min_ps(0xffff, a, b);
  } else {
    return _mm512_maskz_min_pd(0xff, a, b);
  }
#else
  return a < b ? a : b;
#endif
}

/// √x in each lane.
template <class V>
[[gnu::always_inline]] inline V sqrt(V x) {
#if defined(DPO_SIMD_AVX512)
  if constexpr (std::same_as<V, Vec<float>>) {
    return _mm512_maskz_sqrt_ps(0xffff, x);
  } else {
    return _mm512_maskz_sqrt_pd(0xff, x);
  }
#elif defined(__AVX2__)
  if constexpr (std::same_as<V, Vec<float>>) {
    return _mm256_sqrt_ps(x);
  } else {
    return _mm256_sqrt_pd(x);
  }
#elif defined(__x86_64__)
  if constexpr (std::same_as<V, Vec<float>>) {
    return _mm_sqrt_ps(x);
  } else {
    return _mm_sqrt_pd(x);
  }
#else
  for (int i = 0; i < static_cast<int>(sizeof(V) / sizeof(x[0])); ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

namespace detail {

template <int First, class V, std::size_t... I>
[[gnu::always_inline]] inline auto slice(V values, std::index_sequence<I...>) {
  return __builtin_shufflevector(values, values, (First + static_cast<int>(I))...);
}

/// Half of the lanes, from lane First on.
template <int First, class V>
[[gnu::always_inline]] inline Pack<Element<V>, pack_size<V> / 2> slice(V values) {
  return slice<First>(values, std::make_index_sequence<pack_size<V> / 2>{});
}

/// Folds the upper half onto the lower one until one lane is left: the order depends on the vector width only.
template <class V, class Op>
[[gnu::always_inline]] inline Element<V> fold(V values, Op op) {
  if constexpr (pack_size<V> == 2) {
    return op(values[0], values[1]);
  } else {
    return fold(op(slice<0>(values), slice<pack_size<V> / 2>(values)), op);
  }
}

}  // namespace detail

/// The sum of all lanes, in a fixed order.
template <class V>
[[gnu::always_inline]] inline detail::Element<V> horizontal_sum(V values) {
  return detail::fold(
      values, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}

/// The largest lane; with a NaN among them, any lane (a later sum of exponentials still sees the NaN).
template <class V>
[[gnu::always_inline]] inline detail::Element<V> horizontal_max(V values) {
  return detail::fold(
      values, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}

namespace detail {

template <class T>
struct Constants;

template <>
struct Constants<float> {
  using Int = std::uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Int bias = 127;
  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
  static constexpr float round = 12582912.0f;
  static constexpr float log2_e = 1.44269504088896341f;
  // ln 2 in two parts; the first has few enough bits that its product with an exponent is exact without FMA.
  static constexpr float ln2_high = 0.693359375f;
  static constexpr float ln2_low = -2.12194440054690583e-4f;
  static constexpr float ln2 = 0.693147180559945309f;
  static constexpr float exp_lowest = -87.33654f;
  static constexpr float exp_highest = 88.7228317f;
  static constexpr float exp_clamp_high = 89.0f;
  static constexpr float exp_zero = -88.0296919f;  // -127 ln 2
  static constexpr float expm1_lowest = -25.0f;
  // (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, highest power first; near-minimax, relative error 8e-9.
  static constexpr float exp_terms[] = {0.0013926213466332443f, 0.0083632029715758549f, 0.041666554437685939f,
                                        0.16666576845993976f, 0.5f};
  // log((1 + s) / (1 - s)) = 2 s + s R(s^2), highest power first (the coefficients of FreeBSD's logf).
  static constexpr float log_terms[] = {0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f};
  static constexpr float log_ln2_high = 6.9313812256e-01f;
  static constexpr float log_ln2_low = 9.0580006145e-06f;
  static constexpr Int sqrt_half = 0x3f3504f3;
  static constexpr float denormal_scale = 33554432.0f;
  static constexpr float denormal_shift = 25.0f;
};

template <>
struct Constants<double> {
  using Int = std::uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Int bias = 1023;
  static constexpr double round = 6755399441055744.0;
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2_high = 6.93145751953125e-1;
  static constexpr double ln2_low = 1.42860682030941723212e-6;
  static constexpr double exp_lowest = -708.3964185322641;
  static constexpr double exp_highest = 709.782712893384;
  static constexpr double exp_clamp_high = 710.0;
  static constexpr double exp_zero = -709.0895657128241;  // -1023 ln 2
  static constexpr double expm1_lowest = -50.0;
  // Relative error 1.3e-17.
  static constexpr double exp_terms[] = {2.5100424157005066788e-8,   2.7620138719973995569e-7,  2.7557268378684192873e-6,
                                         0.000024801521190217727651, 0.00019841269863105968748, 0.0013888888917281793308,
                                         0.0083333333333300513464,   0.041666666666623991516,   0.16666666666666667456,
                                         0.50000000000000010262};
  static constexpr double log_terms[] = {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
                                         2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
                                         6.666666666666735130e-01};
  static constexpr double log_ln2_high = 6.93147180369123816490e-01;
  static constexpr double log_ln2_low = 1.90821492927058770002e-10;
  static constexpr Int sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double denormal_scale = 18014398509481984.0;
  static constexpr double denormal_shift = 54.0;
};

}  // namespace detail

namespace detail {

/// x - n ln 2, for an n of few bits.
template <class V>
[[gnu::always_inline]] inline V less_ln2(V x, V n) {
  using C = Constants<Element<V>>;
  return (x - n * C::ln2_high) - n * C::ln2_low;
}

/// The same, for float within 1.9e-9 n.
template <class V>
[[gnu::always_inline]] inline V nearly_less_ln2(V x, V n) {
#if defined(__FP_FAST_FMAF)
  // Fused, the product with ln 2 rounded to float is exact.
  if constexpr (std::same_as<Element<V>, float>) return x - n * Constants<float>::ln2;
#endif
  return less_ln2(x, n);
}

/// e^r for |r| <= ln 2 / 2.
template <class V>
[[gnu::always_inline]] inline V exp_series(V r) {
  using T = Element<V>;
  return (math::horner(r, Constants<T>::exp_terms) * r + static_cast<T>(1)) * r + static_cast<T>(1);
}

#if defined(DPO_SIMD_AVX512)

/// 2^(j/16).
inline constexpr float sixteenth_powers[] = {1.0f,        1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
                                             1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                                             1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};

/// A float's x = (k + j/16) ln 2 + r with |r| <= ln 2 / 32. A table of sixteen numbers, which one instruction looks up, saves
/// three multiplications.
struct ExpSixteenths {
  static constexpr int fraction_bits = 4;
  // Adding it rounds to sixteenths, and 16 k + j is then in the low bits.
  static constexpr float round = Constants<float>::round / (1 << fraction_bits);
  using Bits = Pack<std::uint32_t, 16>;

  Vec<float> steps;  // k + j/16
  Bits bits;         // 16 k + j in the low ones

  [[gnu::always_inline]] explicit ExpSixteenths(Vec<float> x) {
    const Vec<float> rounded = x * Constants<float>::log2_e + round;
    steps = rounded - round;
    bits = std::bit_cast<Bits>(rounded);
  }

  /// e^r - 1; minimax for e^r, relative error 1.6e-9.
  [[gnu::always_inline]] static Vec<float> expm1(Vec<float> r) { return (r * (r * (1.0f / 6) + 0.50001618f) + 1.0f) * r; }

  [[gnu::always_inline]] Vec<float> of_table(const float (&table)[16]) const {
    Vec<float> values;
    std::memcpy(&values, table, sizeof(values));
    return __builtin_shuffle(values, bits);
  }

  /// 2^(k + j/16), if that is a normal number.
  [[gnu::always_inline]] Vec<float> scale() const {
    constexpr int shift = Constants<float>::mantissa_bits - fraction_bits;
    // Shifted, j is in the mantissa: the table goes without it.
    Bits table;
    for (std::uint32_t j = 0; j < 16; ++j) table[j] = std::bit_cast<std::uint32_t>(sixteenth_powers[j]) - (j << shift);
    return std::bit_cast<Vec<float>>(__builtin_shuffle(table, bits) + (bits << shift));
  }
};

#endif

}  // namespace detail

/// e^x, within 1.25 ulp where the result is a normal number (0.91 measured with FMA, 1.17 without). -inf gives 0, NaN
/// gives NaN, overflow gives inf, and results below the smallest normal number are 0.
template <class V>
[[gnu::always_inline]] inline V exp(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
#if defined(DPO_SIMD_AVX512)
  // +inf must not reach the range reduction, where inf - inf would be NaN.
  const V arg = min(V{} + C::exp_clamp_high, x);
  // Lanes that underflow, -inf among them, are masked out: a scalef with a denormal result takes a hundred times as long. A NaN
  // is "not less".
  if constexpr (std::same_as<T, float>) {
    const detail::ExpSixteenths parts(arg);
    const V fraction = parts.of_table(detail::sixteenth_powers);
    const V p = fraction + fraction * parts.expm1(detail::less_ln2(arg, parts.steps));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, V{} + C::exp_lowest, _CMP_NLT_UQ), p, parts.steps);
  } else {
    const V n = (arg * C::log2_e + C::round) - C::round;
    const V p = detail::exp_series(detail::less_ln2(arg, n));
    return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(x, V{} + C::exp_lowest, _CMP_NLT_UQ), p, n);
  }
#else
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  const V rounded = x * C::log2_e + C::round;
  const V n = rounded - C::round;
  const V p = detail::exp_series(detail::less_ln2(x, n));
  // Adding to the exponent field is right for every x whose result is a normal number; all others are replaced.
  const V scaled = std::bit_cast<V>(std::bit_cast<Bits>(p) + (std::bit_cast<Bits>(rounded) << C::mantissa_bits));
  const V finite = x <= C::exp_highest ? scaled : x + std::numeric_limits<T>::infinity();
  return x < C::exp_lowest ? V{} : finite;
#endif
}

/// e^x for x up to 88 for float and 709 for double; what larger ones give is unspecified. Within 1.25 ulp where the result is a
/// normal number, for float and 2.8e-9 |x| of it beyond that. -inf gives 0, NaN gives NaN, and results below the smallest normal
/// number are 0. A quarter faster than exp().
template <class V>
[[gnu::always_inline]] inline V exp_no_overflow(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
#if defined(DPO_SIMD_AVX512)
  if constexpr (std::same_as<T, float>) {
    const detail::ExpSixteenths parts(x);
    const V scale = parts.scale();
    return x < C::exp_lowest ? V{} : scale + scale * parts.expm1(detail::nearly_less_ln2(x, parts.steps));
  }
#endif
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  constexpr auto one = C::bias << C::mantissa_bits;
  const V rounded = x * C::log2_e + C::round;
  const V p = detail::exp_series(detail::nearly_less_ln2(x, rounded - C::round));
  // A product, since adding to the exponent would make numbers of some NaNs.
  const V scale = std::bit_cast<V>((std::bit_cast<Bits>(rounded) << C::mantissa_bits) + one);
  return x < C::exp_lowest ? V{} : p * scale;
}

/// ln x, within 1.1 ulp. 0 gives -inf, negative numbers and NaN give NaN, inf gives inf; denormals are right.
template <class V>
[[gnu::always_inline]] inline V log(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  constexpr auto one = C::bias << C::mantissa_bits;
  constexpr auto mantissa = (typename C::Int{1} << C::mantissa_bits) - 1;
  const auto tiny = x < std::numeric_limits<T>::min();
  const V scaled = tiny ? x * C::denormal_scale : x;
  const Bits shifted = std::bit_cast<Bits>(scaled) + (one - C::sqrt_half);
  const Bits exponent = (shifted >> C::mantissa_bits) - C::bias;
  const V k =
      (std::bit_cast<V>(exponent + std::bit_cast<Bits>(V{} + C::round)) - C::round) - (tiny ? V{} + C::denormal_shift : V{});
  const V f = std::bit_cast<V>((shifted & mantissa) + C::sqrt_half) - static_cast<T>(1);
  const V s = f / (f + static_cast<T>(2));
  const V z = s * s;
  const V half_square = f * f * static_cast<T>(0.5);
  const V tail = s * (half_square + z * math::horner(z, C::log_terms)) + k * C::log_ln2_low;
  const V positive = k * C::log_ln2_high - ((half_square - tail) - f);
  const V infinity = V{} + std::numeric_limits<T>::infinity();
  const V domain = x == V{} ? -infinity : x - x + std::numeric_limits<T>::quiet_NaN();
  return x > V{} ? (x == infinity ? infinity : positive) : domain;
}

namespace detail {

/// x = n ln 2 + r with |r| <= ln 2 / 2: n + Constants::round, whose low bits are the integer n, e^r - 1 - r and e^r - 1. Where
/// n = 0, r is x itself.
template <class V>
struct ExpReduced {
  V rounded;
  V rm1_less_r;
  V rm1;
};

template <class V>
[[gnu::always_inline]] inline ExpReduced<V> exp_reduce(V x) {
  using C = Constants<Element<V>>;
  const V rounded = x * C::log2_e + C::round;
  const V r = less_ln2(x, rounded - C::round), first = math::horner(r, C::exp_terms) * r;
  return {rounded, first * r, first * r + r};
}

}  // namespace detail

/// e^x - 1, within 2.75 ulp (1.5 where x <= 0), for tiny x too. -inf gives -1, NaN gives NaN, overflow gives inf, -0 gives 0.
template <class V>
[[gnu::always_inline]] inline V expm1(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  constexpr auto one = C::bias << C::mantissa_bits;
  const auto [rounded, rm1_less_r, rm1] = detail::exp_reduce(max(V{} + C::expm1_lowest, x));
  // e^x - 1 = 2^n ((e^r - 1) + (1 - 2^-n)), which is e^r - 1 itself where n = 0. For the largest n, 128 or 1024, the bits of
  // 2^-n come out as those of -inf, and 0 takes their place.
  const Bits shift = std::bit_cast<Bits>(rounded) << C::mantissa_bits;
  const V sum = rm1 + (static_cast<T>(1) - max(V{}, std::bit_cast<V>(one - shift)));
  const V scaled = std::bit_cast<V>(std::bit_cast<Bits>(sum) + shift);
  return x <= C::exp_highest ? scaled : x + std::numeric_limits<T>::infinity();
}

/// e^x (within 1.25 ulp), e^x - 1 (1.5) and e^x - 1 - x (4.5 for x > -0.34, else 12) for x <= 0, from one range reduction. -inf
/// gives {0, -1, inf}, NaN gives NaN, and an e below the smallest normal number is 0. Positive x up to 88 for float and 709 for
/// double are allowed, with em1 within 2.75 ulp; what larger ones give is unspecified.
template <class V>
[[gnu::always_inline]] inline math::ExpParts<V> exp_parts(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  constexpr auto one = C::bias << C::mantissa_bits;
  // Where e underflows x is replaced by the number whose 2^n, put together below, is 0.
  const auto [rounded, rm1_less_r, rm1] = detail::exp_reduce(x < C::exp_lowest ? V{} + C::exp_zero : x);
  const V scale = std::bit_cast<V>((std::bit_cast<Bits>(rounded) << C::mantissa_bits) + one);
  const V em1 = scale * rm1 + (scale - static_cast<T>(1));
  return {scale * rm1 + scale, em1, select(rounded == C::round, rm1_less_r, em1 - x)};
}

/// a / b within 1.5 ulp, for b of ordinary size.
template <class V>
[[gnu::always_inline]] inline V quotient(V a, V b) {
#if defined(DPO_SIMD_AVX512)
  // An estimate of 14 bits and one step of Newton's method cost half as much as a division.
  if constexpr (std::same_as<V, Vec<float>>) {
    const V estimate = _mm512_maskz_rcp14_ps(0xffff, b);
    return a * (estimate + estimate * (1.0f - b * estimate));
  }
#endif
  return a / b;
}

/// ln(1 + x), within 2.25 ulp, for tiny x too. -1 gives -inf, smaller numbers and NaN give NaN, inf gives inf, -0 gives 0.
template <class V>
[[gnu::always_inline]] inline V log1p(V x) {
  using T = detail::Element<V>;
  using C = detail::Constants<T>;
  using Bits = Pack<typename C::Int, detail::pack_size<V>>;
  constexpr auto one = C::bias << C::mantissa_bits;
  constexpr auto mantissa = (typename C::Int{1} << C::mantissa_bits) - 1;
  // 1 + x = 2^k (1 + f): the rounded sum only chooses k. f = 2^-k x + (2^-k - 1) is x itself where k = 0. It is computed
  // four times as large, since 2^-k may be below the normal numbers.
  const V sum = x + static_cast<T>(1);
  const Bits shifted = std::bit_cast<Bits>(sum) + (one - C::sqrt_half);
  const V k = std::bit_cast<V>((shifted >> C::mantissa_bits) + (std::bit_cast<Bits>(V{} + C::round) - C::bias)) - C::round;
  const V scale = std::bit_cast<V>((2 * one + (typename C::Int{2} << C::mantissa_bits)) - (shifted & ~mantissa));
  const V f = (scale * x + (scale - static_cast<T>(4))) * static_cast<T>(0.25);
  const V s = f / (f + static_cast<T>(2));
  const V reduced = f - math::less_log1p(f, s, C::log_terms);
  const V inside = k * C::log_ln2_high + (k * C::log_ln2_low + reduced);
  const V infinity = V{} + std::numeric_limits<T>::infinity();
  const V domain = sum == V{} ? -infinity : x - x + std::numeric_limits<T>::quiet_NaN();
  return sum > V{} ? (x == infinity ? infinity : inside) : domain;
}

}  // namespace dpo::cpu
