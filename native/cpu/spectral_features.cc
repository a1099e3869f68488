#include "native/cpu/spectral_features.h"

#include <algorithm>
#include <cmath>

#include "native/cpu/kernel_formulas.h"
#include "native/cpu/kernel_rows.h"

namespace dpo::cpu {
namespace {

double distance_to_landmark(const KernelMember& member, const SeenRows& of, std::int64_t r, std::int64_t l, double inner) {
  return math::squared_distance(of.squares[r] + member.landmark_squares[l], inner, [&] {
    return squared_distance(of.rows + r * of.stride, member.landmarks + l * of.stride, of.stride);
  });
}

/// Inner products with the landmarks become base values and slopes.
void evaluate_base(const KernelMember& member, const SeenRows& of, std::int64_t r, const SpectralScratch& scratch) {
  const std::int64_t count = member.linear.width();
  double* base = scratch.base + r * count;
  double* slopes = scratch.slopes + r * count;
  double* self_slopes = scratch.self_slopes + r * count;
  if (math::seen_by(member.base.kind) == math::Seen::squared_distance) {
    for (std::int64_t l = 0; l < count; ++l) base[l] = distance_to_landmark(member, of, r, l, base[l]);
  }
  evaluate_formula_of_vectors(
      member.base, count,
      [&](std::int64_t l, int n) {
        return math::InnerProducts<Vec<double>>{load_partial(base + l, n, 0.0), broadcast(of.squares[r]),
                                                load_partial(member.landmark_squares + l, n, 1.0)};
      },
      [&](std::int64_t l, int n, const math::InnerProductPoint<Vec<double>>& point) {
        store_partial(base + l, n, point.value);
        store_partial(slopes + l, n, point.slopes.uv);
        store_partial(self_slopes + l, n, point.slopes.uu);
      });
  scratch.log_scales[r] = *std::max_element(base, base + count);
  for (std::int64_t l = 0; l < count; l += lanes<double>) {
    const int n = static_cast<int>(std::min<std::int64_t>(lanes<double>, count - l));
    store_partial(base + l, n, exp(load_partial(base + l, n, 0.0) - scratch.log_scales[r]));
  }
}

/// to [columns] = x [rows]·matrix [rows, columns].
void multiply(const double* x, const double* matrix, std::int64_t rows, std::int64_t columns, double* to) {
  std::fill_n(to, columns, 0.0);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) to[j] += x[i] * matrix[i * columns + j];
  }
}

}  // namespace

void spectral_features(const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch, double* workspace,
                       ReadAhead next) {
  const std::int64_t count = member.linear.width(), rank = member.rank();
  member.linear.apply(of.rows, of.count, scratch.base, workspace, next);
  for (std::int64_t r = 0; r < of.count; ++r) {
    evaluate_base(member, of, r, scratch);
    multiply(scratch.base + r * count, member.projection_transpose, count, rank, scratch.features + r * rank);
  }
}

void spectral_pull_back(const KernelMember& member, const SeenRows& of, bool normalized, const SpectralScratch& scratch,
                        bool overwrite, double* row_grads, double* workspace) {
  const std::int64_t count = member.linear.width(), rank = member.rank();
  const bool of_distance = math::seen_by(member.base.kind) == math::Seen::squared_distance;
  double* along = scratch.log_scales;  // no longer needed
  for (std::int64_t r = 0; r < of.count; ++r) {
    double* coefficients = scratch.coefficients + r * count;
    multiply(scratch.grads + r * rank, member.projection, rank, count, coefficients);
    along[r] = 0;
    for (std::int64_t l = r * count; l < (r + 1) * count; ++l) {
      const double grad = scratch.coefficients[l] * scratch.base[l];
      const double inner = grad * scratch.slopes[l];
      // ‖u − l‖² = ‖u‖² − 2⟨u, l⟩ + ‖l‖².
      scratch.coefficients[l] = of_distance ? -2 * inner : inner;
      along[r] += 2 * (of_distance ? inner : grad * scratch.self_slopes[l]);
    }
  }
  member.linear.pull_back(scratch.coefficients, of.count, overwrite, row_grads, workspace);
  for (std::int64_t r = 0; !normalized && r < of.count; ++r) {
    const double* row = of.rows + r * of.stride;
    double* to = row_grads + r * of.stride;
    for_each_vector(of.stride, [=](std::int64_t i) { store(to + i, load(to + i) + along[r] * load(row + i)); });
  }
}

}  // namespace dpo::cpu
