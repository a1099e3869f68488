#include "native/cuda/kernel_members.h"

#include <algorithm>

namespace dpo::cuda {
namespace {

math::KernelFormula formula_on_device(Call& call, const dpo_kernel_formula& from) {
  math::KernelFormula formula = formula_of(from);
  formula.parameters = call.input<double>(from.parameters);
  return formula;
}

std::vector<double> squares_of(const dpo_tensor& rows) {
  const std::int64_t depth = rows.shape[1];
  std::vector<double> squares;
  for (std::int64_t r = 0; r < rows.shape[0]; ++r) {
    const double* row = static_cast<const double*>(rows.data) + r * depth;
    double sum = 0;
    for (std::int64_t i = 0; i < depth; ++i) sum += row[i] * row[i];
    squares.push_back(sum);
  }
  return squares;
}

std::int64_t width_of(const dpo_kernel_member& from, KernelMap map, std::int64_t depth) {
  switch (map) {
    case KernelMap::factor:
      return from.map.shape[1];
    case KernelMap::frequencies:
      return from.map.shape[0];
    case KernelMap::landmarks:
      return from.landmarks.shape[0];
    default:
      return depth;
  }
}

KernelMember member_of(Call& call, const dpo_kernel_member& from, std::int64_t depth) {
  KernelMember member{};
  member.formula = formula_on_device(call, from.formula);
  member.seen = math::seen_by(member.formula.kind);
  member.map = map_of(from);
  member.width = width_of(from, member.map, depth);
  member.matrix = call.input<double>(from.map);
  if (member.map != KernelMap::landmarks) return member;
  member.landmarks = call.input<double>(from.landmarks);
  member.landmark_squares = call.upload(squares_of(from.landmarks));
  member.base = formula_on_device(call, from.base);
  return member;
}

}  // namespace

KernelMembers::KernelMembers(Call& call, const dpo_kernel& kernel, std::int64_t depth)
    : normalizes_(kernel.normalize != 0), weights_(MixtureWeights::of(kernel)), places_(gradient_places(kernel)) {
  for (std::int32_t m = 0; m < kernel.member_count; ++m) {
    members_.push_back(member_of(call, kernel.members[m], depth));
    members_.back().log_weight = weights_.log_weight(m);
  }
  on_device_ = call.upload(members_);
}

bool KernelMembers::any(KernelMap map) const {
  return std::any_of(members_.begin(), members_.end(), [=](const auto& member) { return member.map == map; });
}

bool KernelMembers::any_sees(math::Seen seen) const {
  return std::any_of(members_.begin(), members_.end(), [=](const auto& member) { return member.plain() && member.seen == seen; });
}

}  // namespace dpo::cuda
