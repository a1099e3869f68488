#include "native/cpu/kernel_members.h"

#include <cmath>

#include "native/cpu/kernel_rows.h"

namespace dpo::cpu {
namespace {

using math::LogKernel;

std::int64_t size_of(const dpo_tensor& tensor) {
  std::int64_t size = present(tensor) ? 1 : 0;
  for (std::int32_t axis = 0; axis < tensor.rank; ++axis) size *= tensor.shape[axis];
  return size;
}

math::KernelFormula formula_of(const dpo_kernel_formula& from) {
  return {static_cast<LogKernel>(from.kind),
          data<double>(from.parameters),
          size_of(from.parameters),
          from.nu,
          from.floor,
          from.unit_diagonal != 0};
}

KernelMap map_of(const dpo_kernel_member& member) {
  switch (static_cast<LogKernel>(member.formula.kind)) {
    case LogKernel::mahalanobis:
      return member.map.rank == 1 ? KernelMap::diagonal : KernelMap::factor;
    case LogKernel::random_fourier:
      return KernelMap::frequencies;
    case LogKernel::spectral:
      return KernelMap::landmarks;
    default:
      return KernelMap::none;
  }
}

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
  prepare_weights(kernel);
  place_gradients(kernel);
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
      return to.linear.pack(job, {map, from.map.shape[1], 1}, depth, from.map.shape[1]);
    case KernelMap::frequencies:
      return to.linear.pack(job, {map, 1, depth}, depth, from.map.shape[0]);
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
  return to.linear.pack(job, {to.landmarks, 1, stride}, depth, count);
}

void KernelMembers::prepare_weights(const dpo_kernel& kernel) {
  if (kernel.group_count == 0) return;
  tree_ = {kernel.group_count, kernel.member_count, data<std::int32_t>(kernel.parents), data<double>(kernel.logits)};
  math::mixture_log_shares(tree_, log_shares_.data());
  math::mixture_log_weights(tree_, log_shares_.data(), log_weights_.data());
  math::mixture_entropies(tree_, log_shares_.data(), entropies_.data());
}

void KernelMembers::place_gradients(const dpo_kernel& kernel) {
  std::int64_t at = 0;
  for (std::size_t m = 0; m < static_cast<std::size_t>(count_); ++m) {
    places_.parameters[m] = at;
    at += size_of(kernel.members[m].formula.parameters);
    places_.factors[m] = at;
    const KernelMap map = members_[m].map;
    if (map == KernelMap::diagonal || map == KernelMap::factor) at += size_of(kernel.members[m].map);
  }
  places_.log_weights = at;
  places_.size = at + count_;
}

bool KernelMembers::any(KernelMap map) const {
  return std::any_of(members_.begin(), members_.begin() + count_, [=](const auto& member) { return member.map == map; });
}

bool KernelMembers::any_maps_differences() const { return any(KernelMap::factor) || any(KernelMap::frequencies); }

bool KernelMembers::any_sees(math::Seen seen) const {
  return std::any_of(members_.begin(), members_.begin() + count_,
                     [=](const auto& member) { return member.plain() && member.seen == seen; });
}

void KernelMembers::write_shares(const dpo_tensor& shares, const dpo_tensor& entropies) const {
  if (present(shares)) {
    for (std::int64_t node = 0; node < tree_.nodes(); ++node)
      set(shares, node, std::exp(log_shares_[static_cast<std::size_t>(node)]));
  }
  if (present(entropies)) std::copy_n(entropies_.begin(), tree_.groups, data<double>(entropies));
}

void KernelMembers::write_gradients(const double* sums, double entropy_upstream, const dpo_kernel_gradients& grads) const {
  for (std::size_t m = 0; m < static_cast<std::size_t>(count_); ++m) {
    if (const auto& to = grads.parameters[m]; present(to))
      std::copy_n(sums + places_.parameters[m], size_of(to), data<double>(to));
    if (const auto& to = grads.factors[m]; present(to)) std::copy_n(sums + places_.factors[m], size_of(to), data<double>(to));
  }
  if (!is_mixture() || !present(grads.logits)) return;
  auto* logits = data<double>(grads.logits);
  std::copy_n(sums + places_.log_weights, count_, logits + tree_.groups);
  math::mixture_pull_back(tree_, log_shares_.data(), entropies_.data(), entropy_upstream, logits);
}

}  // namespace dpo::cpu
