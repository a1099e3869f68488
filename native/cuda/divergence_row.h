// A divergence of one pair of rows after the other, by one block, or by several where rows are few: what all kinds share. The
// log-sum-exps come first, and the gradient in the logits of the policy, dD/dx_j = w_j − p_j·Σw, comes last; by then the rows are
// in the second-level cache, for there are only as many blocks as it has room for rows.
#pragma once

#include <cmath>
#include <limits>

#include "native/core/divergence.h"
#include "native/cuda/call.h"
#include "native/cuda/grid.h"
#include "native/cuda/logit_map.h"
#include "native/cuda/row_moments.h"
#include "native/cuda/row_team.h"
#include "native/cuda/scalars.h"
#include "native/cuda/softmax_part.h"
#include "native/math/divergences.h"
#include "native/math/softmax_ratios.h"

namespace dpo::cuda {

using math::Normalizers;
using math::RowState;

/// Threads of a long row's block: as many as leave each the registers that it needs. Some kinds need more, and say so.
template <class C, class Kind>
constexpr unsigned divergence_threads() {
  if constexpr (sizeof(C) > sizeof(float)) return 256;
  if constexpr (requires { requires Kind::kManyRegisters; }) return 384;
  return 512;
}

/// All rows of a call.
template <class S>
struct DivergenceRows {
  const S *policy, *reference;
  const std::int32_t* targets;  // may be null
  std::int64_t count, columns;
  Scalars upstream, target_upstream;  // may be absent
  compute_t<S>* values;
  S* gradient;                  // null: values only
  unsigned long long* failure;  // of the first row that ends the call: row·kStates + its state
  std::int64_t first = 0;       // rows before it are left out

  static constexpr unsigned long long kStates = 8;

  __device__ bool ignored(std::int64_t row) const { return targets && targets[row] == DPO_IGNORED_TARGET; }

  /// Bad logits end the call always, an infinite value where it would enter a gradient.
  __device__ __forceinline__ void set_outcome(std::int64_t row, RowState state, double value) const {
    values[row] = static_cast<compute_t<S>>(value);
    if (state == RowState::finite || (state == RowState::infinite && (!gradient || upstream.at(row) == 0))) return;
    atomicMin(failure, static_cast<unsigned long long>(row) * kStates + static_cast<unsigned long long>(state));
  }
};

/// The largest logit of a row and its first place.
template <class C>
struct Peak {
  double value = -std::numeric_limits<double>::infinity();
  long long place = -1;
  __device__ __forceinline__ void merge(const Peak& other) {
    if (other.value > value || (other.value == value && other.place >= 0 && other.place < place)) *this = other;
  }
};

/// Sums over the points of a row, and the extremes of t.
struct PointSums {
  double term = 0, weight = 0;
  double highest = -std::numeric_limits<double>::infinity(), lowest = std::numeric_limits<double>::infinity();

  __device__ __forceinline__ void merge(const PointSums& other) {
    term += other.term;
    weight += other.weight;
    highest = other.highest > highest ? other.highest : highest;
    lowest = other.lowest < lowest ? other.lowest : lowest;
  }
};

template <class C>
struct PointGradient {
  C gradient, p;
};

/// One row, in the hands of its team. Everything it returns is the same for every thread; sums are those of nothing while the team
/// waits for them, and what is settled or written then is left to a later launch.
template <class S, class C>
class DivergenceRow {
 public:
  using Map = AnyLogitMap<C>;
  using Ratios = math::SoftmaxRatios<C, Map>;
  using E = math::ScalarElementary<C>;

  __device__ __forceinline__ DivergenceRow(const DivergenceRows<S>& all, const Map& map, std::int64_t row, RowTeam& team)
      : all_(all),
        map_(map),
        row_(row),
        team_(team),
        rows_{all.policy + row * all.columns, all.reference + row * all.columns, all.columns, team.begin(), team.end()} {}

  __device__ const LogitRows<S, C>& logits() const { return rows_; }
  __device__ const Map& map() const { return map_; }
  __device__ std::int64_t row() const { return row_; }
  /// Whether what a kind writes itself is to be written now.
  __device__ bool writes() const { return team_.writes(); }
  __device__ __forceinline__ bool wants_gradient() const { return all_.gradient != nullptr && upstream() != 0; }

  /// Of an ignored row.
  __device__ __forceinline__ void clear() const {
    if (!team_.writes()) return;
    if (threadIdx.x == 0 && team_.leads()) all_.values[row_] = 0;
    fill_gradient();
  }

  template <math::Moment moment>
  __device__ __forceinline__ math::RowMoments moments(double alpha) const {
    return team_.total([&] { return row_moments<moment>(rows_, map_, alpha); });
  }

  /// Sets the value. Whether a gradient of it is to be written; if not, what there is else of the gradient has been.
  __device__ __forceinline__ bool settle(double value, const Normalizers& sums) const {
    if (team_.waits()) return false;
    const bool fits = std::fabs(value) <= static_cast<double>(std::numeric_limits<compute_t<S>>::max());
    set_outcome(fits ? RowState::finite : RowState::infinite, fits ? value : std::numeric_limits<double>::infinity());
    if (wants_gradient()) return fits;
    if (team_.writes()) write_target_gradient(sums);
    return false;
  }
  __device__ __forceinline__ void set_outcome(RowState state, double value) const {
    if (threadIdx.x == 0 && team_.leads() && team_.writes()) all_.set_outcome(row_, state, value);
  }

  /// Σ of at(i, LogRatio with its t as it is) over the points.
  template <class At>
  __device__ __forceinline__ PointSums sum(const Ratios& ratios, const At& at) const {
    return team_.total([&] {
      PointSums sums;
      rows_.for_each([&](std::int64_t i, C zx, C zy) {
        const math::LogRatio<C> r = ratios.at(zx, zy);
        const auto t = static_cast<double>(r.t);
        sums.highest = t > sums.highest ? t : sums.highest;
        sums.lowest = t < sums.lowest ? t : sums.lowest;
        const math::PointTerms<C> terms = at(i, r);
        sums.term += static_cast<double>(terms.term);
        sums.weight += static_cast<double>(terms.weight);
      });
      return sums;
    });
  }
  /// The same of a functor of native/math.
  template <class Divergence>
  __device__ __forceinline__ PointSums sum_of(const Ratios& ratios, const Divergence& divergence) const {
    return sum(ratios, [&](std::int64_t, const math::LogRatio<C>& r) { return divergence.template at<E>(math::ratio_of<E>(r)); });
  }

  /// What all t are too large by: Σ (p − q) is 0, and what is computed for it is that error.
  __device__ __forceinline__ double log_ratio_error(const Normalizers& sums) const {
    return sum_of(Ratios(map_, sums), math::Differences{}).term;
  }

  /// Writes (upstream·g − target_upstream·p)·dz'/dz; point_at(i, LogRatio) gives g = dD/dz' and p. g sums to 0.
  template <class PointAt>
  __device__ __forceinline__ void write(const Normalizers& sums, const Ratios& ratios, const PointAt& point_at) const {
    const std::int64_t peak = peak_of(sums), place = target_upstream() != 0 ? target() : -1;
    // Thread 0 has the peak, thread 1 the target; before any gradient is written, for it may take the place of the logits.
    const std::int64_t mine = threadIdx.x == 0 ? peak : (threadIdx.x == 1 && place != peak ? place : -1);
    const ExactPoint exact = team_.kept([&] { return mine >= 0 ? exact_point(mine, sums, ratios, point_at) : ExactPoint{}; });
    __syncthreads();
    const double excess = write_points(ratios, point_at);
    __syncwarp();  // more than one warp have met in the sum
    // Where p is next to 1, g is a small difference of large numbers: what is left of the sum is its error.
    if (mine >= 0 && team_.leads() && team_.writes()) to()[mine] = exact_gradient(exact, mine == peak ? excess : 0, mine == place);
  }

 private:
  /// A point in double precision.
  struct ExactPoint {
    double g, log_prob, slope;
  };

  __device__ __forceinline__ double upstream() const { return all_.upstream.at(row_); }
  __device__ __forceinline__ double target_upstream() const { return all_.target_upstream.at_or(row_, 0); }
  __device__ __forceinline__ std::int64_t target() const { return all_.targets[row_]; }
  __device__ __forceinline__ S* to() const { return all_.gradient + row_ * all_.columns; }

  __device__ __forceinline__ void fill_gradient() const {
    if (!all_.gradient) return;
    write_part(rows_.packs(), to(), [](std::int64_t, compute_t<S>) { return compute_t<S>(0); });
  }

  /// Writes the gradient of target_upstream·ln p[target] alone.
  __device__ __forceinline__ void write_target_gradient(const Normalizers& sums) const {
    if (!all_.gradient) return;
    if (target_upstream() == 0) {
      fill_gradient();
      return;
    }
    using T = compute_t<S>;
    // In the type of the logits, as token_log_probs does.
    const LogProbGradient<C, Map> gradient(map_, sums.x.log_sum_exp(), target_upstream(), target());
    rows_.transform(to(), [&](std::int64_t i, C zx, C) { return static_cast<T>(gradient(i, zx)); });
  }

  template <class PointAt>
  __device__ __forceinline__ ExactPoint exact_point(std::int64_t i, const Normalizers& sums, const Ratios& ratios,
                                                    const PointAt& point_at) const {
    const C z = rows_.policy(i);
    return {static_cast<double>(point_of(i, z, rows_.reference(i), ratios, point_at).gradient), sums.x.log_prob(map_.mapped(z)),
            static_cast<double>(map_.slope(map_.capped(z)))};
  }

  __device__ __forceinline__ S exact_gradient(const ExactPoint& point, double excess, bool is_target) const {
    // 1 − p by expm1, since p may be next to 1.
    const double of_target = -target_upstream() * (is_target ? std::expm1(point.log_prob) : std::exp(point.log_prob));
    return to_storage<S>(static_cast<compute_t<S>>((upstream() * (point.g - excess) + of_target) * point.slope));
  }

  template <class PointAt>
  __device__ __forceinline__ PointGradient<C> point_of(std::int64_t i, C zx, C zy, const Ratios& ratios,
                                                       const PointAt& point_at) const {
    math::LogRatio<C> r = ratios.at(zx, zy);
    r.t = math::clamped_log_ratio<E>(r.t);
    return point_at(i, r);
  }

  /// The place of a logit that has more than about half of the mass, or −1.
  __device__ __forceinline__ std::int64_t peak_of(const Normalizers& sums) const {
    constexpr double kHalf = 0.7;
    if (sums.x.log_sum > kHalf) return -1;
    const auto mine = [&] {
      Peak<C> peak;
      const auto see = [&](std::int64_t i, S z) {
        const auto value = static_cast<double>(to_compute(z));
        if (value > peak.value) peak = {value, i};
      };
      rows_.packs().for_each(
          [&](std::int64_t i, const Pack<S>& pack) {
#pragma unroll
            for (int k = 0; k < Pack<S>::size; ++k) see(i + k, pack.values[k]);
          },
          see);
      return peak;
    };
    return team_.total(mine).place;
  }

  /// Returns Σ g.
  template <class PointAt>
  __device__ __forceinline__ double write_points(const Ratios& ratios, const PointAt& point_at) const {
    using T = compute_t<S>;
    const auto upstream = static_cast<C>(this->upstream()), target_upstream = static_cast<C>(this->target_upstream());
    const auto mine = [&] {
      Sum sum;
      rows_.transform(to(), [&](std::int64_t i, C zx, C zy) {
        const PointGradient<C> point = point_of(i, zx, zy, ratios, point_at);
        sum.value += static_cast<double>(point.gradient);
        return static_cast<T>((upstream * point.gradient - target_upstream * point.p) * map_.slope(map_.capped(zx)));
      });
      return sum;
    };
    return team_.total(mine).value;
  }

  const DivergenceRows<S>& all_;
  const Map& map_;
  std::int64_t row_;
  RowTeam& team_;
  LogitRows<S, C> rows_;
};

/// Kind: what is done with a row whose log-sum-exps are finite; see point_divergence.h.
template <class S, class C, class Kind>
__global__ __launch_bounds__(divergence_threads<C, Kind>(), 1) void divergence_rows(DivergenceRows<S> rows, RowTeams teams,
                                                                                   AnyLogitMap<C> map, Kind kind) {
  const std::int64_t parts = teams.parts.parts, end = (rows.count - rows.first) * parts;
  for (std::int64_t share = blockIdx.x; share < end; share += gridDim.x) {
    const std::int64_t index = share / parts, i = rows.first + index;
    RowTeam team(teams, index, share - index * parts);
    const DivergenceRow<S, C> row(rows, map, i, team);
    if (rows.ignored(i)) {
      row.clear();
      continue;
    }
    const math::RowMoments found = row.template moments<Kind::moment>(kind.alpha());
    if (team.waits()) continue;
    const Normalizers sums(found);
    const auto finite = [](double x) { return std::fabs(x) < std::numeric_limits<double>::infinity(); };
    if (!finite(sums.x.log_sum_exp())) {
      row.set_outcome(RowState::bad_policy, 0);
    } else if (!finite(sums.y.log_sum_exp())) {
      row.set_outcome(RowState::bad_reference, 0);
    } else {
      kind.run(row, found, sums);
    }
  }
}

/// What a kind takes of shared memory, if it says so.
template <class Kind>
std::size_t row_shared_bytes(unsigned threads) {
  if constexpr (requires { Kind::shared_bytes(threads); }) return Kind::shared_bytes(threads);
  return merge_block_bytes<math::RowMoments>(threads);
}

/// Bytes of rows that are in work at a time: about half of the second-level cache of the devices that this is for.
inline constexpr std::int64_t kRowsInFlight = std::int64_t{24} << 20;
/// Blocks below which a device has processors without work.
inline constexpr std::int64_t kLeastRowBlocks = 128;

template <class S>
std::int64_t row_blocks(const DivergenceRows<S>& rows) {
  const std::int64_t row_bytes = 2 * rows.columns * static_cast<std::int64_t>(sizeof(S));
  return std::min(rows.count - rows.first, std::max(kLeastRowBlocks, kRowsInFlight / row_bytes));
}

/// Whether several blocks may share a row: a kind says so when all that it wants of the row goes through DivergenceRow.
template <class Kind>
constexpr bool splits_rows() {
  if constexpr (requires { Kind::kSplitsRows; }) return Kind::kSplitsRows;
  return false;
}

template <class S, class C, class Kind>
void launch_rows(Call& call, const DivergenceRows<S>& rows, const dpo_logit_options& options, const Kind& kind) {
  const unsigned threads = rows.columns > 8192 ? divergence_threads<C, Kind>() : row_threads(rows.columns);
  const std::int64_t count = rows.count - rows.first;
  RowTeams teams =
      splits_rows<Kind>() ? RowTeams::of(call, count, rows.columns, kLeastRowBlocks) : RowTeams::of_one(rows.columns);
  const std::int64_t blocks = teams.parts.parts > 1 ? count * teams.parts.parts : row_blocks(rows);
  const Grid grid{{static_cast<unsigned>(blocks), 1, 1}, threads, row_shared_bytes<Kind>(threads)};
  for (; teams.launch < teams.launches(); ++teams.launch)
    call.launch(divergence_rows<S, C, Kind>, grid, rows, teams, AnyLogitMap<C>(options), kind);
}

}  // namespace dpo::cuda
