#include "native/cpu/spectral_features.h"

#include <algorithm>
#include <cmath>

#include "native/cpu/kernel_formulas.h"
#include "native/cpu/kernel_rows.h"

namespace dpo::cpu {
namespace {

/// Below this share of ‖u‖² + ‖l‖² a squared distance is measured again, as a sum of squared differences.
constexpr double kCancelled = 1e-4;

double distance_to_landmark(const KernelMember& member, const SeenRows& of, std::int64_t r, std::int64_t l, double inner) {
  const double squares = of.squares[r] + member.landmark_squares[l];
  const double squared = squares - 2 * inner;
  if (squared > kCancelled * squares) return squared;
  return squared_distance(of.rows + r * of.stride, member.landmarks + l * of.stride, of.stride);
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
  double largest = -std::numeric_limits<double>::infinity();
  evaluate_formula(
      member.base, count,
      [&](std::int64_t l) {
        return Seen{base[l], of.squares[r], member.landmark_squares[l]};
      },
      [&](std::int64_t l, const LogKernelPoint& point) {
        base[l] = point.value;
        slopes[l] = point.slopes.uv;
        self_slopes[l] = point.slopes.uu;
        largest = std::max(largest, point.value);
      });
  for (std::int64_t l = 0; l < count; ++l) base[l] = std::exp(base[l] - largest);
  scratch.log_scales[r] = largest;
}

}  // namespace

void spectral_features(const KernelMember& member, const SeenRows& of, const SpectralScratch& scratch, double* workspace) {
  const std::int64_t count = member.linear.width();
  member.linear.apply(of.rows, of.stride, of.count, scratch.base, workspace);
  for (std::int64_t r = 0; r < of.count; ++r) {
    evaluate_base(member, of, r, scratch);
    const double* base = scratch.base + r * count;
    for (std::int64_t k = 0; k < member.rank(); ++k) {
      double feature = 0;
      for (std::int64_t l = 0; l < count; ++l) feature += member.projection[k * count + l] * base[l];
      scratch.features[r * member.rank() + k] = feature;
    }
  }
}

void spectral_pull_back(const KernelMember& member, const SeenRows& of, bool normalized, const SpectralScratch& scratch,
                        double* row_grads, double* workspace) {
  const std::int64_t count = member.linear.width();
  const bool of_distance = math::seen_by(member.base.kind) == math::Seen::squared_distance;
  for (std::int64_t r = 0; r < of.count; ++r) {
    double* base = scratch.base + r * count;
    double along = 0;
    for (std::int64_t l = 0; l < count; ++l) {
      double grad = 0;
      for (std::int64_t k = 0; k < member.rank(); ++k)
        grad += scratch.grads[r * member.rank() + k] * member.projection[k * count + l];
      grad *= base[l];
      // ‖u − l‖² = ‖u‖² − 2⟨u, l⟩ + ‖l‖².
      const double inner = grad * scratch.slopes[r * count + l];
      base[l] = of_distance ? -2 * inner : inner;
      along += of_distance ? 2 * inner : 2 * grad * scratch.self_slopes[r * count + l];
    }
    if (normalized) continue;
    const double* row = of.rows + r * of.stride;
    double* to = row_grads + r * of.stride;
    for_each_vector(of.stride, [=](std::int64_t i) { store(to + i, load(to + i) + along * load(row + i)); });
  }
  member.linear.pull_back(scratch.base, of.count, row_grads, of.stride, workspace);
}

}  // namespace dpo::cpu
