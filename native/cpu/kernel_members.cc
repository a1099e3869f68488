#include "native/cpu/kernel_members.h"

#include <cmath>

#include "native/cpu/kernel_rows.h"

namespace dpo::cpu {
namespace {

/// The rows with zeros up to the stride of kernel_rows.h, or null.
const double* padded_rows(dpo_job* job, const double* rows, std::int64_t count, std::int64_t depth) {
  const std::int64_t stride = row_stride(depth);
  auto* padded = allocate<double>(job, count * stride);
  for (std::int64_t r = 0; padded && r < count; ++r) {
    std::copy_n(rows + r * depth, depth, padded + r * stride);
    std::fill_n(padded + r * stride + depth, stride - depth, 0.0);
  }
  return padded;
}

}  // namespace

bool KernelMembers::prepare(dpo_job* job, const dpo_kernel& kernel, std::int64_t depth) {
  count_ = kernel.member_count;
  normalizes_ = kernel.normalize != 0;
  for (std::int32_t m = 0; m < count_; ++m) {
    if (!prepare_member(job, kernel.members[m], depth, members_[static_cast<std::size_t>(m)])) return false;
  }
  weights_ = MixtureWeights::of(kernel);
  places_ = gradient_places(kernel);
  return true;
}

bool KernelMembers::prepare_member(dpo_job* job, const dpo_kernel_member& from, std::int64_t depth, KernelMember& to) const {
  to.formula = formula_of(from.formula);
  to.seen = math::seen_by(to.formula.kind);
  to.map = map_of(from);
  const auto* map = data<double>(from.map);
  switch (to.map) {
    case KernelMap::diagonal:
      to.diagonal = padded_rows(job, map, 1, depth);
      return to.diagonal != nullptr;
    case KernelMap::factor:
      return to.linear.prepare(job, {map, from.map.shape[1], 1}, depth, from.map.shape[1]);
    case KernelMap::frequencies:
      return to.linear.prepare(job, {map, 1, depth}, depth, from.map.shape[0]);
    case KernelMap::landmarks:
      return prepare_landmarks(job, from, depth, to);
    default:
      return true;
  }
}

bool KernelMembers::prepare_landmarks(dpo_job* job, const dpo_kernel_member& from, std::int64_t depth, KernelMember& to) const {
  const std::int64_t count = from.landmarks.shape[0], stride = row_stride(depth);
  to.base = formula_of(from.base);
  to.projection = data<double>(from.map);
  to.landmarks = padded_rows(job, data<double>(from.landmarks), count, depth);
  auto* squares = allocate<double>(job, count);
  auto* transpose = allocate<double>(job, count * to.rank());
  if (!to.landmarks || !squares || !transpose) return false;
  for (std::int64_t l = 0; l < count; ++l) {
    const double* row = to.landmarks + l * stride;
    squares[l] = inner_product(row, row, stride);
  }
  to.landmark_squares = squares;
  for (std::int64_t l = 0; l < count; ++l) {
    for (std::int64_t k = 0; k < to.rank(); ++k) transpose[l * to.rank() + k] = to.projection[k * count + l];
  }
  to.projection_transpose = transpose;
  return to.linear.prepare(job, {to.landmarks, 1, stride}, depth, count);
}

bool KernelMembers::any(KernelMap map) const {
  return std::any_of(members_.begin(), members_.begin() + count_, [=](const auto& member) { return member.map == map; });
}

bool KernelMembers::any_maps_differences() const { return any(KernelMap::factor) || any(KernelMap::frequencies); }

bool KernelMembers::any_sees(math::Seen seen) const {
  return std::any_of(members_.begin(), members_.begin() + count_,
                     [=](const auto& member) { return member.plain() && member.seen == seen; });
}

}  // namespace dpo::cpu
