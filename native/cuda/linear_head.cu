#include "native/cuda/linear_head.h"

#include <cstring>

namespace dpo::cuda {
namespace {

/// The largest magnitude of an array, and its first element that is not finite, as numbers that atomics order.
struct Scan {
  unsigned long long largest_bits, first_bad;
};

struct Largest {
  double value;
  __device__ void merge(const Largest& other) { value = other.value > value ? other.value : value; }
};

template <class S>
__global__ __launch_bounds__(256) void scan_elements(const S* values, std::int64_t count, Scan* scan) {
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  Largest largest{0};
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    const double magnitude = std::fabs(static_cast<double>(to_compute(values[i])));
    if (!(magnitude < std::numeric_limits<double>::infinity())) {
      atomicMin(&scan->first_bad, static_cast<unsigned long long>(i));
    } else if (magnitude > largest.value) {
      largest.value = magnitude;
    }
  }
  largest = merge_block(largest);
  if (threadIdx.x == 0) {
    unsigned long long bits;  // of numbers that are not negative, in their order
    std::memcpy(&bits, &largest.value, sizeof bits);
    atomicMax(&scan->largest_bits, bits);
  }
}

}  // namespace

template <class S>
double largest_magnitude(Call& call, const char* prefix, const char* name, const S* values, std::int64_t count) {
  if (!values || !call.ok()) return 0;
  auto* scan = call.allocate<Scan>(1);
  call.fill(&scan->largest_bits, 0, sizeof scan->largest_bits);
  call.fill(&scan->first_bad, 0xff, sizeof scan->first_bad);
  Grid grid = grid_of(count, kElementsEach);
  grid.shared_bytes = merge_block_bytes<Largest>(grid.threads);
  call.launch(scan_elements<S>, grid, values, count, scan);
  const Scan found = call.read(scan);
  if (!call.ok()) return 0;
  const auto bad = static_cast<std::int64_t>(found.first_bad);
  if (bad >= 0)
    call.fail_at(bad, DPO_ERR_NONFINITE, "%s%s: element %lld is not finite", prefix, name, static_cast<long long>(bad));
  double largest;
  std::memcpy(&largest, &found.largest_bits, sizeof largest);
  return largest;
}

#define DPO_INSTANTIATE(S) template double largest_magnitude<S>(Call&, const char*, const char*, const S*, std::int64_t);
DPO_INSTANTIATE(float)
DPO_INSTANTIATE(double)
DPO_INSTANTIATE(__half)
DPO_INSTANTIATE(__nv_bfloat16)
#undef DPO_INSTANTIATE

}  // namespace dpo::cuda
