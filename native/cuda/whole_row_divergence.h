// The kinds that are no sum over independent points. They compute in double precision.
#pragma once

#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

/// renyi(∞): max ln(p/q) over the points with p > 0; the gradient is 1 at that point, less p. Equal points share it in proportion
/// to p, which is what the gradient of renyi(α) tends to.
struct MaxLogRatio {
  static constexpr math::Moment moment = math::Moment::none;
  static constexpr bool kSplitsRows = true;
  __host__ __device__ static double alpha() { return 0; }

  template <class S>
  __device__ __forceinline__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&,
                                      const Normalizers& sums) const {
    using E = math::ScalarElementary<double>;
    const typename DivergenceRow<S, double>::Ratios ratios(row.map(), sums, row.log_ratio_error(sums));
    const double largest = row.sum_of(ratios, math::MassAt{0}).highest;
    const bool differs = largest > 0;
    if (!row.settle(differs ? largest : 0, sums)) return;
    const math::MassAt at_largest{largest};
    const double mass = row.sum_of(ratios, at_largest).weight, slope = differs ? 1 / mass : 0;
    row.write(sums, ratios, [&](std::int64_t, const math::LogRatio<double>& r) {
      const math::Ratio<double> ratio = math::ratio_of<E>(r);
      return PointGradient<double>{slope * (at_largest.at<E>(ratio).weight - ratio.p * mass), ratio.p};
    });
  }
};

/// Σ q·f(p/q) from tables of f and f' at the ratios of all points; w = p·f'. Where q = 0 < p the tables hold the limit of f', and
/// the term is p times that.
struct GeneratorDivergence {
  static constexpr math::Moment moment = math::Moment::none;
  static constexpr bool kSplitsRows = true;
  const double *values, *slopes;  // [N, V]; slopes with a gradient only

  __host__ __device__ static double alpha() { return 0; }

  template <class S>
  __device__ __forceinline__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&,
                                      const Normalizers& sums) const {
    const std::int64_t first = row.row() * row.logits().columns;
    const double *of_values = values + first, *of_slopes = row.wants_gradient() ? slopes + first : nullptr;
    const auto weight = [of_slopes](std::int64_t i, double p) { return of_slopes && p > 0 ? p * of_slopes[i] : 0; };
    const typename DivergenceRow<S, double>::Ratios ratios(row.map(), sums);
    const PointSums total = row.sum(ratios, [&](std::int64_t i, const math::LogRatio<double>& r) {
      const double p = std::exp(r.lp), q = std::exp(r.lq), mass = q > 0 ? q : p;
      return math::PointTerms<double>{mass > 0 ? mass * of_values[i] : 0, weight(i, p)};
    });
    if (!row.settle(total.term, sums)) return;
    row.write(sums, ratios, [&](std::int64_t i, const math::LogRatio<double>& r) {
      const double p = std::exp(r.lp);
      return PointGradient<double>{weight(i, p) - p * total.weight, p};
    });
  }
};

/// The Wasserstein distance of two distributions over ordered points: Σ_j |F_j|^e with F the difference of the cumulative sums of
/// p and q. ∂D/∂p_i = Σ_{j ≥ i} e·|F_j|^(e−1)·sign F_j.
struct OrderedTransport {
  static constexpr math::Moment moment = math::Moment::none;
  double exponent;
  double* memory;  // [blocks, V]

  __host__ __device__ static double alpha() { return 0; }
  static std::size_t shared_bytes(unsigned threads) {
    return merge_block_bytes<math::RowMoments>(threads) + threads * sizeof(double);
  }

  template <class S>
  __device__ __forceinline__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&,
                                      const Normalizers& sums) const {
    using E = math::ScalarElementary<double>;
    const std::int64_t count = row.logits().columns;
    double* cumulative = memory + blockIdx.x * count;
    const typename DivergenceRow<S, double>::Ratios ratios(row.map(), sums);
    // p and q are normalised to within rounding, which a long row would add up: the excess goes back to where it came from.
    const double excess = row.sum_of(ratios, math::Differences{}).weight;
    Sum value;
    scan(
        count,
        [&](std::int64_t j) {
          const math::Ratio<double> point = math::ratio_of<E>(ratios.at(row.logits().policy(j), row.logits().reference(j)));
          return point.difference - excess * point.p;
        },
        [&](std::int64_t j, double sum) {
          cumulative[j] = sum;
          if (j + 1 < count) value.value += power(std::fabs(sum), exponent);
        });
    if (!row.settle(merge_block_for_all(value).value, sums)) return;
    // From the last point on, which nothing hangs on.
    Sum weight;
    scan(
        count,
        [&](std::int64_t i) {
          const double f = i > 0 ? cumulative[count - 1 - i] : 0, sign = f > 0 ? 1 : (f < 0 ? -1 : 0);
          return exponent * power(std::fabs(f), exponent - 1) * sign;
        },
        [&](std::int64_t i, double slope) {
          const std::int64_t j = count - 1 - i;
          cumulative[j] = slope;
          weight.value += slope * std::exp(ratios.at(row.logits().policy(j), row.logits().reference(j)).lp);
        });
    const double mean = merge_block_for_all(weight).value;
    row.write(sums, ratios, [&](std::int64_t j, const math::LogRatio<double>& r) {
      const double p = std::exp(r.lp);
      return PointGradient<double>{p * (cumulative[j] - mean), p};
    });
  }

 private:
  __device__ __forceinline__ static double power(double base, double exponent) {
    if (exponent == 1) return base;
    return exponent == 0 ? 1 : std::pow(base, exponent);
  }

  /// Calls to(i, Σ_{j ≤ i} of(j)) for 0 .. count − 1; a thread has the same i in both.
  template <class Of, class To>
  __device__ __forceinline__ static void scan(std::int64_t count, const Of& of, const To& to) {
    auto* sums =
        reinterpret_cast<double*>(static_cast<char*>(shared_memory()) + blockDim.x / kWarpSize * sizeof(math::RowMoments));
    double before = 0;
    for (std::int64_t first = 0; first < count; first += blockDim.x) {
      const std::int64_t i = first + threadIdx.x;
      double sum = i < count ? of(i) : 0;
      sums[threadIdx.x] = sum;
      for (unsigned distance = 1; distance < blockDim.x; distance *= 2) {
        __syncthreads();
        if (threadIdx.x >= distance) sum += sums[threadIdx.x - distance];
        __syncthreads();
        sums[threadIdx.x] = sum;
      }
      __syncthreads();
      if (i < count) to(i, before + sum);
      before += sums[blockDim.x - 1];
      __syncthreads();
    }
  }
};

}  // namespace dpo::cuda
