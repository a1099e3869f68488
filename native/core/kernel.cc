#include "native/core/kernel.h"

#include <algorithm>
#include <cmath>

#include "native/core/kernel_checks.h"
#include "native/math/log_kernels.h"

namespace dpo {
namespace {

using math::LogKernel;

LogKernel kind_of(const dpo_kernel_formula& formula) { return static_cast<LogKernel>(formula.kind); }

/// How many parameters a kind has; -1: any number of them, -2: any even number.
int parameter_count(LogKernel kind) {
  switch (kind) {
    case LogKernel::rbf_mixture:
      return -2;
    case LogKernel::spectral:
      return -1;
    case LogKernel::mahalanobis:
    case LogKernel::random_fourier:
      return 0;
    case LogKernel::rational_quadratic:
    case LogKernel::polynomial:
      return 2;
    default:
      return 1;
  }
}

void check_formula(Checks& checks, const char* name, const dpo_kernel_formula& formula) {
  checks.require(formula.kind >= 0 && formula.kind < math::log_kernel_count, DPO_ERR_RANGE, "kernel: unknown kind");
  if (!checks.ok()) return;
  const int wanted = parameter_count(kind_of(formula));
  if (wanted == 0) {
    checks.require(!present(formula.parameters), DPO_ERR_SHAPE, "kernel: parameters of a kind that has none");
    return;
  }
  checks.shape(name, formula.parameters, {wanted < 0 ? -1 : wanted}).dtype(name, formula.parameters, DPO_F64);
  checks.require(wanted != -2 || formula.parameters.shape[0] % 2 == 0, DPO_ERR_SHAPE,
                 "kernel: rbf_mixture needs as many rates as lambdas");
  checks.require(formula.floor > 0 && formula.floor < 1, DPO_ERR_RANGE, "kernel: floor must be between 0 and 1");
  const bool has_nu = kind_of(formula) == LogKernel::matern;
  checks.require(!has_nu || formula.nu == 0.5 || formula.nu == 1.5 || formula.nu == 2.5 || std::isinf(formula.nu), DPO_ERR_RANGE,
                 "nu: must be 0.5, 1.5, 2.5 or Infinity; other smoothness is not supported");
}

/// What the map of this kind is called.
const char* map_name(LogKernel kind) {
  if (kind == LogKernel::mahalanobis) return "factor";
  return kind == LogKernel::random_fourier ? "frequencies" : "projection";
}

void check_map(Checks& checks, const dpo_kernel_member& member, std::int64_t depth) {
  const dpo_tensor& map = member.map;
  switch (kind_of(member.formula)) {
    case LogKernel::mahalanobis:
      if (map.rank == 1) {
        checks.shape("factor", map, {depth});
      } else {
        checks.shape("factor", map, {depth, -1});
      }
      break;
    case LogKernel::random_fourier:
      checks.shape("frequencies", map, {-1, depth});
      break;
    case LogKernel::spectral:
      checks.shape("landmarks", member.landmarks, {-1, depth}).dtype("landmarks", member.landmarks, DPO_F64);
      if (!checks.ok()) return;
      checks.shape("projection", map, {member.formula.parameters.shape[0], member.landmarks.shape[0]});
      check_formula(checks, "base parameters", member.base);
      if (!checks.ok()) return;
      checks.require(
          kind_of(member.base) == LogKernel::polynomial || (math::seen_by(kind_of(member.base)) == math::Seen::squared_distance &&
                                                            kind_of(member.base) != LogKernel::mahalanobis),
          DPO_ERR_RANGE, "base: must be a kernel of the squared distance, or polynomial");
      break;
    default:
      return;
  }
  checks.dtype(map_name(kind_of(member.formula)), map, DPO_F64);
}

void check_tree(Checks& checks, const dpo_kernel& kernel) {
  if (kernel.group_count == 0) {
    checks.require(kernel.member_count == 1, DPO_ERR_RANGE, "kernel: several kernels need a group");
    return;
  }
  const std::int64_t nodes = kernel.group_count + kernel.member_count;
  checks.shape("kernel parents", kernel.parents, {nodes}).dtype("kernel parents", kernel.parents, DPO_I32);
  checks.shape("logits", kernel.logits, {nodes}).dtype("logits", kernel.logits, DPO_F64);
}

void check_parameter_contents(Checks& checks, const dpo_kernel_formula& formula) {
  if (!present(formula.parameters)) return;
  checks.finite_contents("kernel parameters", formula.parameters);
  const auto* values = static_cast<const double*>(formula.parameters.data);
  for (std::int64_t i = 0; checks.ok() && i < formula.parameters.shape[0]; ++i) {
    const bool is_coef0 = kind_of(formula) == LogKernel::polynomial && i == 1;
    if (is_coef0) {
      checks.non_negative("coef0", values[i]);
    } else if (parameter_count(kind_of(formula)) == 1) {
      checks.positive("sigma", values[i]);
    } else {
      checks.positive("kernel parameters", values[i]);
    }
  }
}

void check_tree_contents(Checks& checks, const dpo_kernel& kernel) {
  if (kernel.group_count == 0) return;
  checks.finite_contents("logits", kernel.logits);
  const auto* parents = static_cast<const std::int32_t*>(kernel.parents.data);
  checks.require(parents[0] == -1, DPO_ERR_RANGE, "kernel: the first group must be the root");
  for (std::int32_t node = 1; node < kernel.group_count + kernel.member_count; ++node) {
    const bool is_earlier_group = parents[node] >= 0 && parents[node] < std::min(node, kernel.group_count);
    checks.require(is_earlier_group, DPO_ERR_RANGE, "kernel: a node's parent must be an earlier group", node);
  }
}

}  // namespace

void check_kernel(Checks& checks, const dpo_kernel& kernel, std::int64_t depth) {
  checks.require(kernel.member_count >= 1 && kernel.member_count <= DPO_MAX_MEMBERS, DPO_ERR_RANGE,
                 "kernel: expected 1 to 16 kernels");
  checks.require(kernel.group_count >= 0 && kernel.group_count <= DPO_MAX_GROUPS, DPO_ERR_RANGE,
                 "kernel: expected at most 16 groups");
  for (std::int32_t m = 0; checks.ok() && m < kernel.member_count; ++m) {
    check_formula(checks, "kernel parameters", kernel.members[m].formula);
    if (checks.ok()) check_map(checks, kernel.members[m], depth);
  }
  if (checks.ok()) check_tree(checks, kernel);
}

void check_kernel_contents(Checks& checks, const dpo_kernel& kernel) {
  for (std::int32_t m = 0; checks.ok() && m < kernel.member_count; ++m) {
    const dpo_kernel_member& member = kernel.members[m];
    check_parameter_contents(checks, member.formula);
    if (present(member.map)) checks.finite_contents(map_name(kind_of(member.formula)), member.map);
    if (present(member.landmarks)) {
      checks.finite_contents("landmarks", member.landmarks);
      check_parameter_contents(checks, member.base);
    }
  }
  if (checks.ok()) check_tree_contents(checks, kernel);
}

void check_kernel_gradients(Checks& checks, const dpo_kernel& kernel, const dpo_kernel_gradients& grads) {
  for (std::int32_t m = 0; m < kernel.member_count; ++m) {
    const dpo_kernel_member& member = kernel.members[m];
    if (present(member.formula.parameters)) {
      checks.shape("out.parameters", grads.parameters[m], {member.formula.parameters.shape[0]});
      checks.dtype("out.parameters", grads.parameters[m], DPO_F64);
    }
    if (kind_of(member.formula) == LogKernel::mahalanobis) {
      if (member.map.rank == 1) {
        checks.shape("out.factor", grads.factors[m], {member.map.shape[0]});
      } else {
        checks.shape("out.factor", grads.factors[m], {member.map.shape[0], member.map.shape[1]});
      }
      checks.dtype("out.factor", grads.factors[m], DPO_F64);
    }
  }
  if (kernel.group_count == 0) return;
  checks.shape("out.logits", grads.logits, {kernel.logits.shape[0]}).dtype("out.logits", grads.logits, DPO_F64);
}

}  // namespace dpo
