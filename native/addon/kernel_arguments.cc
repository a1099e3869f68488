#include "native/addon/kernel_arguments.h"

#include <algorithm>

namespace dpo {
namespace {

dpo_kernel_formula read_formula(Arguments& in) {
  dpo_kernel_formula formula{};
  formula.kind = in.integer();
  formula.unit_diagonal = in.integer();
  formula.floor = in.number();
  formula.nu = in.number();
  formula.parameters = in.tensor();
  return formula;
}

dpo_kernel_member read_member(Arguments& in) {
  dpo_kernel_member member{};
  member.formula = read_formula(in);
  member.map = in.tensor();
  member.landmarks = in.tensor();
  member.base = read_formula(in);
  return member;
}

/// Counts beyond the limit are refused by the checks; until then nothing is written out of bounds.
std::int32_t members_of(const dpo_kernel& kernel) { return std::min<std::int32_t>(kernel.member_count, DPO_MAX_MEMBERS); }

}  // namespace

dpo_kernel read_kernel(Arguments& in) {
  dpo_kernel kernel{};
  kernel.normalize = in.integer();
  kernel.member_count = in.integer();
  for (std::int32_t m = 0; m < members_of(kernel); ++m) kernel.members[m] = read_member(in);
  kernel.group_count = in.integer();
  kernel.parents = in.tensor();
  kernel.logits = in.tensor();
  return kernel;
}

dpo_kernel_gradients read_kernel_gradients(Arguments& in, const dpo_kernel& kernel) {
  dpo_kernel_gradients grads{};
  for (std::int32_t m = 0; m < members_of(kernel); ++m) {
    grads.parameters[m] = in.tensor();
    grads.factors[m] = in.tensor();
  }
  grads.logits = in.tensor();
  return grads;
}

}  // namespace dpo
