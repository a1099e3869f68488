#include "native/core/random_features.h"
#include "native/core/spectral_density.h"
#include "native/cuda/alarm.h"
#include "native/cuda/dense_solvers.h"
#include "native/cuda/grid.h"
#include "native/cuda/operations.h"
#include "native/cuda/reduce.h"

namespace dpo::cuda {
namespace {

/// squares[row]: what the length of the row is made of. A warp a row.
__global__ void find_squares(SpectralDensity density, std::int64_t count, std::int64_t rows, double* squares) {
  for_each_by_warp(rows, [&](std::int64_t row) {
    const double square = warp_sum(0, count, [&](double sum, std::int64_t i) { return density.add_square(sum, row, count, i); });
    if (threadIdx.x % kWarpSize == 0) squares[row] = square;
  });
}

const double* squares_of(Call& call, const SpectralDensity& density, std::int64_t count, std::int64_t rows) {
  auto* squares = call.allocate<double>(rows);
  call.launch(find_squares, warps_of(rows), density, count, rows, squares);
  return squares;
}

__global__ void draw_independent(SpectralDensity density, const double* squares, std::int64_t count, double* to,
                                 Alarm* overflow) {
  bool fit = true;
  for_each_index(count, [&](std::int64_t i) {
    const std::int64_t row = i / density.depth;
    to[i] = density.independent(row, i - row * density.depth, squares[row]);
    fit = fit && fits<double>(to[i]);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// Normal rows from `begin` on, as the columns of a square.
__global__ void draw_columns(SpectralDensity density, std::int64_t begin, double* to) {
  const std::int64_t depth = density.depth;
  for_each_index(depth * depth, [&](std::int64_t i) {
    const std::int64_t c = i / depth;
    to[i] = density.normal(begin + i - c * depth, c);
  });
}

/// `count` numbers of orthonormal rows become frequencies.
__global__ void stretch_rows(SpectralDensity density, const double* units, const double* squares, std::int64_t count, double* to,
                             Alarm* overflow) {
  bool fit = true;
  for_each_index(count, [&](std::int64_t i) {
    to[i] = density.orthogonal(units[i], squares[i / density.depth]);
    fit = fit && fits<double>(to[i]);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// Blocks of D rows at right angles to each other, each row as long as a normal one. Yu et al. (2016), "Orthogonal random
/// features".
void draw_orthogonal(Call& call, const SpectralDensity& density, std::int64_t rows, const double* squares, double* to,
                     Alarm* overflow) {
  const std::int64_t depth = density.depth;
  auto* block = call.allocate<double>(depth * depth);
  for (std::int64_t begin = 0; begin < rows && call.ok(); begin += depth) {
    const std::int64_t count = std::min(depth, rows - begin) * depth;
    call.launch(draw_columns, grid_of(depth * depth), density, begin, block);
    // Rows in turn from columns: the columns' triangle is R of a QR decomposition of the normal rows.
    make_rows_orthonormal(call, depth, block);
    call.launch(stretch_rows, passes(count), density, block, squares + begin, count, to + begin * depth, overflow);
  }
}

dpo_status draw(Call& call, const dpo_random_frequencies_args& args) {
  const auto density = SpectralDensity::of(args);
  const std::int64_t rows = args.frequencies.shape[0];
  auto* frequencies = call.output<double>(args.frequencies);
  const double* squares = squares_of(call, density, density.length_count(args.orthogonal != 0), rows);
  Alarm* overflow = new_alarm(call);
  if (args.orthogonal) {
    draw_orthogonal(call, density, rows, squares, frequencies, overflow);
  } else {
    const std::int64_t count = rows * density.depth;
    call.launch(draw_independent, grid_of(count), density, squares, count, frequencies, overflow);
  }
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "sigma: frequencies overflow");
  return call.finish();
}

}  // namespace

dpo_status random_frequencies(dpo_job* job, const dpo_random_frequencies_args* args) {
  return run(job, [&](Call& call) { return draw(call, *args); });
}

}  // namespace dpo::cuda
