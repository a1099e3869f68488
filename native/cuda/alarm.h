// A number of the device's that threads raise: 0 as long as none has.
#pragma once

#include <cmath>
#include <limits>

#include "native/cuda/call.h"

namespace dpo::cuda {

using Alarm = unsigned long long;

inline Alarm* new_alarm(Call& call) {
  auto* alarm = call.allocate<Alarm>(1);
  call.fill(alarm, 0, sizeof *alarm);
  return alarm;
}

/// Whether S has a finite number for it.
template <class S>
__device__ __forceinline__ bool fits(double x) {
  return std::fabs(x) <= static_cast<double>(std::numeric_limits<S>::max());
}

}  // namespace dpo::cuda
