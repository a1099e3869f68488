// Embeddings as kernels see them: rows of double, normalised where the kernel does so, each in `stride` elements of which those
// past the row's end are 0. Scaled rows are stored before they are subtracted: where u = v all differences must be exactly 0,
// which u·a − v·b contracted to one fused operation is not.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "native/cpu/row_chunks.h"
#include "native/cpu/simd.h"
#include "native/math/inverse_norm.h"

namespace dpo::cpu {

inline std::int64_t row_stride(std::int64_t depth) { return (depth + 7) / 8 * 8; }

/// Σ term(i) over the vectors of a row, in an order that depends on its length alone.
template <class Term>
[[gnu::always_inline]] inline double row_sum(std::int64_t stride, const Term& term) {
  constexpr int kSums = 4, kStep = lanes<double>;
  Vec<double> sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums * kStep <= stride; i += kSums * kStep) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; ++s) sums[s] += term(i + s * kStep);
  }
  for (; i < stride; i += kStep) sums[0] += term(i);
  return horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/// Calls visit(i) for the vectors of a row.
template <class Visit>
[[gnu::always_inline]] inline void for_each_vector(std::int64_t stride, const Visit& visit) {
  for (std::int64_t i = 0; i < stride; i += lanes<double>) visit(i);
}

namespace detail {

template <Storage S>
[[gnu::always_inline]] inline Vec<double> load_wide(const S* from) {
  if constexpr (std::same_as<S, double>) {
    return load(from);
  } else {
    return __builtin_convertvector(load_pack<lanes<double>>(from), Vec<double>);
  }
}

template <Storage S>
[[gnu::always_inline]] inline void store_narrow(S* to, Vec<double> values) {
  if constexpr (std::same_as<S, double>) {
    store(to, values);
  } else {
    const auto narrow = __builtin_convertvector(values, Pack<float, lanes<double>>);
    if constexpr (std::same_as<S, float>) {
      std::memcpy(to, &narrow, sizeof(narrow));
    } else {
      const auto bits = convert_to_bits<S>(narrow);
      std::memcpy(to, &bits, sizeof(bits));
    }
  }
}

}  // namespace detail

/// Reads a row into `to`, with zeros past its end; returns Σ x².
template <Storage S>
double convert_row(const S* from, std::int64_t depth, double* to) {
  constexpr int kStep = lanes<double>;
  const std::int64_t whole = depth / kStep * kStep;
  double square = row_sum(whole, [=](std::int64_t i) {
    const Vec<double> x = detail::load_wide(from + i);
    store(to + i, x);
    return x * x;
  });
  S rest[8] = {};
  std::copy(from + whole, from + depth, rest);
  for (std::int64_t i = whole; i < row_stride(depth); i += kStep) {
    const Vec<double> x = detail::load_wide(rest + (i - whole));
    store(to + i, x);
    square += horizontal_sum(x * x);
  }
  return square;
}

namespace detail {

template <class V, std::size_t... I>
[[gnu::always_inline]] inline auto joined(V low, V high, std::index_sequence<I...>) {
  return __builtin_shufflevector(low, high, static_cast<int>(I)...);
}

/// Writes full vectors of the compute type; returns how many elements are done.
template <Storage S, class Value>
[[gnu::always_inline]] inline std::int64_t stream_row(S* to, std::int64_t depth, const Value& value) {
  using T = compute_t<S>;
  constexpr int kStep = lanes<T>;
  if (reinterpret_cast<std::uintptr_t>(to) % (kStep * sizeof(S)) != 0) return 0;
  std::int64_t i = 0;
  for (; i + kStep <= depth; i += kStep) {
    if constexpr (std::same_as<T, double>) {
      stream(to + i, value(i));
    } else {
      using Half = Pack<float, lanes<double>>;
      const Half low = __builtin_convertvector(value(i), Half);
      const Half high = __builtin_convertvector(value(i + lanes<double>), Half);
      stream(to + i, joined(low, high, std::make_index_sequence<lanes<float>>{}));
    }
  }
  return i;
}

}  // namespace detail

/// Rounds value(i) to the storage type, vector by vector.
template <Write write, Storage S, class Value>
[[gnu::always_inline]] inline void store_row(S* to, std::int64_t depth, const Value& value) {
  constexpr int kStep = lanes<double>;
  std::int64_t i = 0;
  if constexpr (write == Write::streamed) i = detail::stream_row(to, depth, value);
  for (; i + kStep <= depth; i += kStep) detail::store_narrow(to + i, value(i));
  if (i == depth) return;
  S rest[kStep];
  detail::store_narrow(rest, value(i));
  std::copy_n(rest, depth - i, to + i);
}

inline Vec<double> magnitude(Vec<double> x) { return x < 0 ? -x : x; }

/// −1, 0 or 1 in each lane.
inline Vec<double> sign(Vec<double> x) {
  const Vec<double> one = broadcast(1.0), zero{};
  return (x > 0 ? one : zero) - (x < 0 ? one : zero);
}

/// 1/‖row‖ from Σ x².
inline double inverse_norm(const double* row, std::int64_t stride, double square) {
  const auto largest = [=] {
    double most = 0;
    for (std::int64_t i = 0; i < stride; ++i) most = std::max(most, std::fabs(row[i]));
    return most;
  };
  return math::inverse_norm(square, largest, [=](double scale) {
    return row_sum(stride, [=](std::int64_t i) {
      const Vec<double> x = load(row + i) * scale;
      return x * x;
    });
  });
}

/// What a row was divided by to become what kernels see.
struct RowNorm {
  double scale;   // 1/‖row‖ when rows are normalised, else 1
  double square;  // ‖row‖² as kernels see it: exactly 1 when rows are normalised
};

/// Reads one embedding. NaN and infinite elements, and a zero row to be normalised, make the row NaN.
template <Storage S>
RowNorm load_row(const S* from, std::int64_t depth, bool normalize, double* to) {
  const std::int64_t stride = row_stride(depth);
  const double square = convert_row(from, depth, to);
  if (!normalize) return {1, square};
  const double scale = inverse_norm(to, stride, square);
  for_each_vector(stride, [&](std::int64_t i) { store(to + i, load(to + i) * scale); });
  return {scale, 1};
}

/// ‖u − v‖².
inline double squared_distance(const double* u, const double* v, std::int64_t stride) {
  return row_sum(stride, [=](std::int64_t i) {
    const Vec<double> difference = load(u + i) - load(v + i);
    return difference * difference;
  });
}

/// ‖u − v‖₁.
inline double absolute_distance(const double* u, const double* v, std::int64_t stride) {
  return row_sum(stride, [=](std::int64_t i) { return magnitude(load(u + i) - load(v + i)); });
}

/// Σ (a·(u − v))², a the diagonal of a factor.
inline double weighted_squared_distance(const double* u, const double* v, const double* a, std::int64_t stride) {
  return row_sum(stride, [=](std::int64_t i) {
    const Vec<double> term = load(a + i) * (load(u + i) - load(v + i));
    return term * term;
  });
}

/// ⟨u, v⟩.
inline double inner_product(const double* u, const double* v, std::int64_t stride) {
  return row_sum(stride, [=](std::int64_t i) { return load(u + i) * load(v + i); });
}

}  // namespace dpo::cpu
