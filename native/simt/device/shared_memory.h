// The dynamic shared memory of the block that runs.
#pragma once

#include "native/simt/grid.h"

namespace dpo::cuda {

inline void* shared_memory() { return simt::block_shared_memory(); }

}  // namespace dpo::cuda
