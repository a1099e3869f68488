// What a row of logits must not hold, found when a pass over all rows has come upon it.
#pragma once

#include <limits>

#include "native/cuda/call.h"
#include "native/cuda/storage.h"

namespace dpo::cuda {

/// No row, in a number that atomicMin makes the first bad one.
inline constexpr unsigned long long kNoRow = ~0ull;

/// A number in device memory, at kNoRow.
inline unsigned long long* first_bad_row(Call& call) {
  auto* row = call.allocate<unsigned long long>(1);
  call.fill(row, 0xff, sizeof *row);
  return row;
}

/// `index` = the first column that is NaN or +inf; kNoRow if none is, and then the row is all −inf. One thread.
template <class S>
__global__ void find_bad_logit(const S* row, std::int64_t columns, unsigned long long* index) {
  *index = kNoRow;
  for (std::int64_t i = columns - 1; i >= 0; --i) {
    const auto z = to_compute(row[i]);
    if (!(z < std::numeric_limits<decltype(z)>::infinity())) *index = static_cast<unsigned long long>(i);
  }
}

/// Ends the call because of a row of `logits` [N, V], which lies at `rows` on the device.
template <class S>
dpo_status nonfinite_logit(Call& call, const char* name, const dpo_tensor& logits, const S* rows, std::int64_t row) {
  const std::int64_t columns = logits.shape[1];
  auto* index = call.allocate<unsigned long long>(1);
  call.launch(find_bad_logit<S>, {{1, 1, 1}, 1}, rows + row * columns, columns, index);
  const unsigned long long bad = call.read(index);
  if (!call.ok()) return call.status();
  const std::int64_t first = row * columns + (bad == kNoRow ? 0 : static_cast<std::int64_t>(bad));
  if (bad == kNoRow)
    return call.fail_at(first, DPO_ERR_NONFINITE, "%s: every element of row %lld is -inf", name, static_cast<long long>(row));
  return call.fail_at(first, DPO_ERR_NONFINITE, "%s: element %lld is NaN or +inf", name, static_cast<long long>(first));
}

}  // namespace dpo::cuda
