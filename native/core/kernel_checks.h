#pragma once

#include "native/core/checks.h"
#include "native/core/kernel.h"

namespace dpo {

/// Kinds are known; parameters, maps and the tree have the shapes that they need for embeddings [*, depth].
void check_kernel(Checks& checks, const dpo_kernel& kernel, std::int64_t depth);

/// Parameters are in their range and the tree is one.
void check_kernel_contents(Checks& checks, const dpo_kernel& kernel);

void check_kernel_gradients(Checks& checks, const dpo_kernel& kernel, const dpo_kernel_gradients& grads);

}  // namespace dpo
