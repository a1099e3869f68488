#pragma once

#include "native/addon/arguments.h"
#include "native/core/kernel.h"

namespace dpo {

// A kernel and the results for its gradients, in the order of lib/kernels/write-kernel.ts.

dpo_kernel read_kernel(Arguments& in);
dpo_kernel_gradients read_kernel_gradients(Arguments& in, const dpo_kernel& kernel);

}  // namespace dpo
