#pragma once

#include <algorithm>

#include "native/cpu/operation.h"
#include "native/cpu/softmax_row.h"

namespace dpo::cpu {

/// Ends the call because of the first logit of the row that is NaN or +inf, or because all of them are −inf.
template <class S>
dpo_status nonfinite_logit(dpo_job* job, const char* name, const dpo_tensor& logits, std::int64_t row) {
  const std::int64_t columns = logits.shape[1];
  const std::int64_t bad = first_bad_logit(data<S>(logits) + row * columns, columns);
  const std::int64_t index = row * columns + std::max<std::int64_t>(bad, 0);
  if (bad < 0)
    return fail(job, DPO_ERR_NONFINITE, index, "%s: every element of row %lld is -inf", name, static_cast<long long>(row));
  return fail(job, DPO_ERR_NONFINITE, index, "%s: element %lld is NaN or +inf", name, static_cast<long long>(index));
}

}  // namespace dpo::cpu
