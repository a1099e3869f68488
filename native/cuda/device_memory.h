// Memory of the device that outlives calls: what tensors there are made of.
#pragma once

#include <cstddef>

namespace dpo::cuda {

void* allocate_device_memory(std::size_t bytes, char* reason, std::size_t capacity);
void free_device_memory(void* memory);

}  // namespace dpo::cuda
