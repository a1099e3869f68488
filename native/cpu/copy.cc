#include "native/core/copy.h"

#include <algorithm>
#include <cstring>

#include "native/core/dtype.h"
#include "native/cpu/operation.h"
#include "native/cpu/operations.h"

namespace dpo::cpu {

dpo_status copy(dpo_job* job, const dpo_copy_args* args) {
  constexpr std::int64_t kChunk = std::int64_t{1} << 20;
  const auto bytes = static_cast<std::int64_t>(byte_size(args->from));
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  return parallel_for(job, (bytes + kChunk - 1) / kChunk, [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * kChunk;
    std::memcpy(data<char>(args->to) + begin, data<char>(args->from) + begin,
                static_cast<std::size_t>(std::min(kChunk, bytes - begin)));
  });
}

}  // namespace dpo::cpu
