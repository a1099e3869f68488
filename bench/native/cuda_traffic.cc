// Prints what every case of cuda_cases.cc moves, as JSON: by dtype, with the launches of which it is made. Kernels are named by
// their addresses in this program.
//   dpo_cuda_traffic [ROWS COLUMNS]
#include <cstdio>
#include <cstdlib>

#include "bench/native/cuda_cases.h"
#include "native/core/dtype.h"

namespace {

using dpo::simt::LaunchTraffic;
using dpo::simt::TrafficModel;

long long number(std::int64_t value) { return static_cast<long long>(value); }

void print(const LaunchTraffic& launch, bool last) {
  std::printf("      {\"kernel\": \"%p\", \"blocks\": %u, \"threads\": %u, \"sharedBytes\": %zu, \"read\": %lld, \"written\": %lld}%s\n",
              launch.kernel, launch.grid.count(), launch.block.count(), launch.shared_bytes, number(launch.read), number(launch.written),
              last ? "" : ",");
}

bool print(const dpo::bench::Case& of, const dpo::bench::Size& size, bool first) {
  const dpo::bench::CountedCase counted = count(of, size);
  if (!counted.failure.empty()) {
    std::fprintf(stderr, "%s, %s: %s\n", of.operation.c_str(), of.what.c_str(), counted.failure.c_str());
    return false;
  }
  std::printf("%s    {\"operation\": \"%s\", \"what\": \"%s\", \"dtype\": \"%s\", \"elements\": %lld,\n", first ? "" : ",\n",
              of.operation.c_str(), of.what.c_str(), dpo::dtype_name(size.dtype), number(counted.elements));
  std::printf("     \"read\": %lld, \"written\": %lld, \"leastRead\": %lld, \"leastWritten\": %lld, \"launches\": [\n", number(counted.read),
              number(counted.written), number(counted.least_read), number(counted.least_written));
  for (const LaunchTraffic& launch : counted.launches) print(launch, &launch == &counted.launches.back());
  std::printf("    ]}");
  std::fflush(stdout);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t rows = argc > 2 ? std::atoll(argv[1]) : 512, columns = argc > 2 ? std::atoll(argv[2]) : 32000;
  std::printf("{\"rows\": %lld, \"columns\": %lld, \"cacheShare\": %lld, \"sector\": %lld, \"cases\": [\n", number(rows), number(columns),
              number(TrafficModel::cache_share), number(TrafficModel::sector));
  bool first = true;
  for (const dpo::bench::Case& of : dpo::bench::cuda_cases()) {
    for (const std::int32_t dtype : {DPO_F32, DPO_BF16, DPO_F64}) {
      if (!print(of, {rows, columns, dtype}, first)) return 1;
      first = false;
    }
  }
  std::printf("\n]}\n");
  return 0;
}
