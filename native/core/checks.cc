#include "native/core/checks.h"

#include "native/core/token_log_probs.h"

namespace dpo {
namespace {

/// Index of the first element for which `bad` holds, or -1.
template <class T, class Predicate>
std::int64_t first_index(const dpo_tensor& tensor, Predicate bad) {
  const T* values = static_cast<const T*>(tensor.data);
  const std::int64_t count = element_count(tensor);
  for (std::int64_t i = 0; i < count; ++i) {
    if (bad(values[i])) return i;
  }
  return -1;
}

std::int64_t first_nonfinite(const dpo_tensor& tensor) {
  const auto bad = [](auto value) { return !std::isfinite(value); };
  // The exponent of NaN and the infinities has all bits set.
  const auto bad_f16 = [](std::uint16_t bits) { return (bits & 0x7c00) == 0x7c00; };
  const auto bad_bf16 = [](std::uint16_t bits) { return (bits & 0x7f80) == 0x7f80; };
  switch (tensor.dtype) {
    case DPO_F64:
      return first_index<double>(tensor, bad);
    case DPO_F16:
      return first_index<std::uint16_t>(tensor, bad_f16);
    case DPO_BF16:
      return first_index<std::uint16_t>(tensor, bad_bf16);
    default:
      return first_index<float>(tensor, bad);
  }
}

}  // namespace

Checks& Checks::finite_contents(const char* name, const dpo_tensor& tensor) {
  if (!ok() || !present(tensor)) return *this;
  if (const std::int64_t index = first_nonfinite(tensor); index >= 0) {
    status_ = {DPO_ERR_NONFINITE, index, std::string(name) + ": element " + std::to_string(index) + " is not finite"};
  }
  return *this;
}

Checks& Checks::target_contents(const dpo_tensor& targets, std::int64_t vocabulary) {
  if (!ok()) return *this;
  const auto bad = [vocabulary](std::int32_t t) { return (t < 0 || t >= vocabulary) && t != DPO_IGNORED_TARGET; };
  const std::int64_t index = first_index<std::int32_t>(targets, bad);
  if (index < 0) return *this;
  const auto target = static_cast<const std::int32_t*>(targets.data)[index];
  status_ = {DPO_ERR_RANGE, index,
             "targets: element " + std::to_string(index) + " is " + std::to_string(target) + ", outside 0.." +
                 std::to_string(vocabulary - 1) + " and not " + std::to_string(DPO_IGNORED_TARGET)};
  return *this;
}

Checks& Checks::offset_contents(const dpo_tensor& offsets, std::int64_t rows) {
  if (!ok()) return *this;
  const auto* values = static_cast<const std::int32_t*>(offsets.data);
  const std::int64_t last = offsets.shape[0] - 1;
  require(values[0] == 0, DPO_ERR_RANGE, "offsets: the first must be 0", 0);
  for (std::int64_t i = 1; ok() && i <= last; ++i) {
    require(values[i] >= values[i - 1], DPO_ERR_RANGE, "offsets: must not fall", i);
  }
  return require(values[last] == rows, DPO_ERR_RANGE, "offsets: the last must be the number of rows", last);
}

}  // namespace dpo
