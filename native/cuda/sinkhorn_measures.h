// Both measures of a transport in the hands of one block, as math::Sinkhorn wants them.
#pragma once

#include "native/cuda/block_cholesky.h"
#include "native/cuda/block_rank.h"
#include "native/cuda/carver.h"
#include "native/cuda/transport.h"
#include "native/math/log_kernels.h"
#include "native/math/sinkhorn.h"
#include "native/math/transport.h"

namespace dpo::cuda {

using math::Measure;

struct Largest {
  double value = 0;
  __device__ void merge(const Largest& other) { value = other.value > value ? other.value : value; }
};

/// The points of one side that carry mass, and what is known of them. An element of these vectors is written by the thread that
/// has its number.
struct MeasurePoints {
  std::int64_t count;
  std::int64_t* places;  // in the support
  double *mass, *log_mass;
  double *potential, *target, *absorbed, *weight;
  double* kernel;  // a row for every point, with an element for every point of the other side

  /// In a part of the memory for `support` points on either side.
  __host__ __device__ static MeasurePoints in(Carver& memory, std::int64_t support) {
    return {0,
            memory.take<std::int64_t>(support),
            memory.take(support),
            memory.take(support),
            memory.take(support),
            memory.take(support),
            memory.take(support),
            memory.take(support),
            memory.take(support * support)};
  }

  /// Calls body(i) for the points of this thread.
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
#pragma unroll 1
    for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) body(i);
  }
  /// Σ of(i) for every thread.
  template <class Of>
  __device__ __forceinline__ double sum(const Of& of) const {
    Sum sum;
    for_each([&](std::int64_t i) { sum.value += of(i); });
    return merge_block_for_all(sum).value;
  }

  /// Those with mass enough of a support; their potentials are 0.
  __device__ __forceinline__ void load(const double* log_masses, std::int64_t support) {
    const auto mass_at = [&](std::int64_t i) { return i < support ? std::exp(log_masses[i]) : 0; };
    count = compact(
        support, [&](std::int64_t i) { return mass_at(i) >= math::kLeastMass; },
        [&](std::int64_t i, std::int64_t point) {
          places[point] = i;
          mass[point] = mass_at(i);
          log_mass[point] = log_masses[i];
        });
    for_each([&](std::int64_t i) { potential[i] = 0; });
  }
};

class SinkhornMeasures {
 public:
  using E = math::ScalarFunctions<double>;

  __host__ __device__ SinkhornMeasures(Carver memory, std::int64_t support)
      : p_(MeasurePoints::in(memory, support)), q_(MeasurePoints::in(memory, support)) {
    system_ = {memory.take((support + 1) * support), memory.take(support), memory.take(support), 0};
    scale_ = memory.take(support);
    start_ = memory.take(support);
    numbers_ = memory.used();
  }
  /// That all of it takes.
  __host__ std::int64_t numbers() const { return numbers_; }

  __device__ __forceinline__ void load(const double* log_p, const double* log_q, std::int64_t support,
                                       const TransportCosts& costs) {
    costs_ = costs;
    p_.load(log_p, support);
    q_.load(log_q, support);
    __syncthreads();
    system_.n = q_.count;
  }

  /// Of the costs between points, which are lowered by the lowest.
  __device__ __forceinline__ math::CostRange lower_costs() {
    math::CostRange range;
    for_each_pair(p_.count, q_.count, [&](std::int64_t i, std::int64_t j) { range.add(costs_.at(p_.places[i], q_.places[j])); });
    range = merge_block_for_all(range);
    lowest_ = range.lowest;
    return range;
  }

  /// Whether p = q and C = Cᵀ between points with mass.
  __device__ __forceinline__ bool symmetric() const {
    if (p_.count != q_.count) return false;
    const double different =
        p_.sum([&](std::int64_t i) { return p_.places[i] == q_.places[i] && p_.log_mass[i] == q_.log_mass[i] ? 0 : 1; });
    if (different > 0) return false;
    Sum uneven;
    for_each_pair(p_.count, p_.count, [&](std::int64_t i, std::int64_t j) {
      if (costs_.at(p_.places[i], p_.places[j]) != costs_.at(p_.places[j], p_.places[i])) uneven.value = 1;
    });
    return merge_block_for_all(uneven).value == 0;
  }

  /// Potentials of all places of the support in units of the cost, less `lowest`: those of points without mass follow from the
  /// other side's.
  __device__ __forceinline__ void write_potentials(Measure of, double epsilon, const double* log_masses, std::int64_t support,
                                                   double lowest, double* to) const {
    const MeasurePoints &side = this->side(of), &other = this->other(of);
    __syncthreads();
    side.for_each([&](std::int64_t i) { to[side.places[i]] = lowest + epsilon * side.potential[i]; });
    for (std::int64_t i = threadIdx.x; i < support; i += blockDim.x) {
      if (std::exp(log_masses[i]) >= math::kLeastMass) continue;
      const auto count = static_cast<std::size_t>(other.count);
      to[i] = lowest + math::soft_minimum(epsilon, count, other.log_mass, other.potential,
                                          [&](std::size_t j) { return cost(of, i, other.places[j]); });
    }
  }

  __device__ __forceinline__ bool fit_by_kernel(Measure to_side) const {
    const MeasurePoints &to = side(to_side), &from = other(to_side);
    Largest drift;
    from.for_each([&](std::int64_t j) {
      drift.merge({std::fabs(from.potential[j] - from.absorbed[j])});
      from.weight[j] = math::sinkhorn::weight<E>(from.mass[j], from.potential[j], from.absorbed[j]);
    });
    __syncthreads();
    to.for_each([&](std::int64_t i) {
      const double* column = from.kernel + i;
      double sum = 0;
#pragma unroll 8
      for (std::int64_t j = 0; j < from.count; ++j) sum += from.weight[j] * column[j * to.count];
      to.target[i] = math::sinkhorn::fitted<E>(to.absorbed[i], sum);
      drift.merge({std::fabs(to.target[i] - to.absorbed[i])});
    });
    __syncthreads();  // the weights have been read
    return merge_block_for_all(drift).value <= math::sinkhorn::kMaxDrift;
  }

  __device__ __forceinline__ void fit_by_logarithms(Measure to_side, double epsilon) const {
    const MeasurePoints &to = side(to_side), &from = other(to_side);
    const double rate = 1 / epsilon;
    __syncthreads();
    to.for_each([&](std::int64_t i) {
      const auto exponent = [&](std::int64_t j) {
        return math::sinkhorn::exponent(from.log_mass[j], from.potential[j], cost(to_side, to.places[i], from.places[j]), rate);
      };
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
#pragma unroll 1
      for (std::int64_t j = 0; j < from.count; ++j) {
        const double x = exponent(j);
        largest = x > largest ? x : largest;
      }
#pragma unroll 1
      for (std::int64_t j = 0; j < from.count; ++j) sum += std::exp(exponent(j) - largest);
      to.target[i] = -(largest + std::log(sum));
    });
  }

  __device__ __forceinline__ void absorb(Measure to_side, double epsilon) const {
    const MeasurePoints &to = side(to_side), &from = other(to_side);
    const double rate = 1 / epsilon;
    to.for_each([&](std::int64_t i) { to.absorbed[i] = to.target[i]; });
    from.for_each([&](std::int64_t j) { from.absorbed[j] = from.potential[j]; });
    __syncthreads();
    for_each_pair(from.count, to.count, [&](std::int64_t j, std::int64_t i) {
      const double kernel =
          math::sinkhorn::kernel<E>(from.absorbed[j], to.absorbed[i], cost(to_side, to.places[i], from.places[j]), rate);
      from.kernel[j * to.count + i] = to.kernel[i * from.count + j] = kernel;
    });
  }

  __device__ __forceinline__ double marginal_error(Measure of) const {
    const MeasurePoints& side = this->side(of);
    return side.sum(
        [&](std::int64_t i) { return math::sinkhorn::marginal_error<E>(side.mass[i], side.potential[i], side.target[i]); });
  }

  __device__ __forceinline__ void move(Measure of, double factor) const {
    const MeasurePoints& side = this->side(of);
    side.for_each([&](std::int64_t i) { side.potential[i] = math::sinkhorn::moved(side.potential[i], side.target[i], factor); });
  }

  __device__ __forceinline__ double mean(Measure of) const {
    const MeasurePoints& side = this->side(of);
    return side.sum([&](std::int64_t i) { return side.mass[i] * side.potential[i]; });
  }

  __device__ __forceinline__ void scale_potentials(double factor) const {
    p_.for_each([&](std::int64_t i) { p_.potential[i] *= factor; });
    q_.for_each([&](std::int64_t i) { q_.potential[i] *= factor; });
  }

  __device__ __forceinline__ void copy_potentials(Measure from, Measure to) const {
    side(to).for_each([&](std::int64_t i) { side(to).potential[i] = side(from).potential[i]; });
  }

  __device__ __forceinline__ void newton_direction() const {
    q_.for_each([&](std::int64_t j) {
      const math::sinkhorn::NewtonPoint point = math::sinkhorn::newton_point(q_.mass[j], q_.potential[j], q_.target[j]);
      scale_[j] = point.scale;
      system_.right_side()[j] = point.gradient;
      q_.weight[j] = math::sinkhorn::column_factor(q_.mass[j], q_.potential[j], q_.absorbed[j], point.scale);
    });
    p_.for_each([&](std::int64_t i) { p_.weight[i] = math::sinkhorn::row_factor(p_.mass[i], p_.potential[i], p_.absorbed[i]); });
    __syncthreads();
    for_each_pair(q_.count, q_.count, [&](std::int64_t j, std::int64_t k) {
      if (k > j) return;
      double sum = 0;
#pragma unroll 8
      for (std::int64_t i = 0; i < p_.count; ++i) {
        const double* row = p_.kernel + i * q_.count;
        sum += (p_.weight[i] * row[j]) * (p_.weight[i] * row[k]);
      }
      system_.row(j)[k] = math::sinkhorn::hessian(j == k, sum * q_.weight[j] * q_.weight[k]);
    });
    system_.solve(math::sinkhorn::kRidge);
    q_.for_each([&](std::int64_t j) { system_.solution[j] *= scale_[j]; });
  }

  __device__ __forceinline__ double bound_direction(double reach) const {
    double* direction = system_.solution;
    const double centre = q_.sum([&](std::int64_t j) { return q_.mass[j] * direction[j]; });
    return q_.sum([&](std::int64_t j) {
      direction[j] = math::sinkhorn::bounded(direction[j], centre, reach);
      return math::sinkhorn::slope(q_.mass[j], q_.potential[j], q_.target[j], direction[j]);
    });
  }

  __device__ __forceinline__ void keep_start() const {
    q_.for_each([&](std::int64_t j) { start_[j] = q_.potential[j]; });
  }
  __device__ __forceinline__ void step(double length) const {
    q_.for_each([&](std::int64_t j) { q_.potential[j] = start_[j] + length * system_.solution[j]; });
  }

 private:
  __device__ __forceinline__ const MeasurePoints& side(Measure of) const { return of == Measure::p ? p_ : q_; }
  __device__ __forceinline__ const MeasurePoints& other(Measure of) const { return of == Measure::p ? q_ : p_; }

  /// Between place i on one side and place j on the other.
  __device__ __forceinline__ double cost(Measure of_i, std::int64_t i, std::int64_t j) const {
    return (of_i == Measure::p ? costs_.at(i, j) : costs_.at(j, i)) - lowest_;
  }

  /// Calls body(i, j) with a warp for each row.
  template <class Body>
  __device__ __forceinline__ static void for_each_pair(std::int64_t rows, std::int64_t columns, const Body& body) {
#pragma unroll 1
    for (std::int64_t i = threadIdx.x / kWarpSize; i < rows; i += blockDim.x / kWarpSize) {
#pragma unroll 1
      for (std::int64_t j = threadIdx.x % kWarpSize; j < columns; j += kWarpSize) body(i, j);
    }
  }

  MeasurePoints p_, q_;
  PositiveSystem system_{};
  double *scale_, *start_;
  TransportCosts costs_{};
  double lowest_ = 0;
  std::int64_t numbers_;
};

}  // namespace dpo::cuda
