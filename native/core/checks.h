#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "native/core/dtype.h"
#include "native/core/job.h"

namespace dpo {

/// Checks of one call's arguments; the first one that fails is kept and the rest do nothing.
class Checks {
 public:
  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

  Checks& require(bool holds, dpo_status code, const char* message, std::int64_t index = -1) {
    if (ok() && !holds) status_ = {code, index, message};
    return *this;
  }

  Checks& given(const char* name, const dpo_tensor& tensor) {
    if (ok() && !present(tensor)) status_ = {DPO_ERR_SHAPE, -1, std::string(name) + ": is missing"};
    return *this;
  }

  /// The tensor has this shape; a wanted extent of -1 is any extent of at least 1.
  Checks& shape(const char* name, const dpo_tensor& tensor, std::initializer_list<std::int64_t> wanted) {
    given(name, tensor);
    if (ok() && !has_shape(tensor, wanted)) status_ = {DPO_ERR_SHAPE, -1, shape_message(name, tensor, wanted)};
    return *this;
  }

  Checks& optional_shape(const char* name, const dpo_tensor& tensor, std::initializer_list<std::int64_t> wanted) {
    return present(tensor) ? shape(name, tensor, wanted) : *this;
  }

  Checks& dtype(const char* name, const dpo_tensor& tensor, std::int32_t wanted) {
    if (ok() && present(tensor) && tensor.dtype != wanted) {
      status_ = {DPO_ERR_DTYPE, -1, std::string(name) + ": expected " + dtype_name(wanted) + ", got " + dtype_name(tensor.dtype)};
    }
    return *this;
  }

  /// f32 f64 f16 bf16.
  Checks& floating(const char* name, const dpo_tensor& tensor) {
    if (ok() && present(tensor) && tensor.dtype == DPO_I32) {
      status_ = {DPO_ERR_DTYPE, -1, std::string(name) + ": expected a floating-point tensor, got i32"};
    }
    return *this;
  }

  /// f32 f64.
  Checks& arithmetic(const char* name, const dpo_tensor& tensor) {
    if (ok() && present(tensor) && tensor.dtype != DPO_F32 && tensor.dtype != DPO_F64) {
      status_ = {DPO_ERR_DTYPE, -1, std::string(name) + ": expected f32 or f64, got " + dtype_name(tensor.dtype)};
    }
    return *this;
  }

  Checks& finite(const char* name, double value) { return number(name, std::isfinite(value), "a finite number"); }

  Checks& positive(const char* name, double value) {
    return number(name, std::isfinite(value) && value > 0, "a finite number greater than 0");
  }

  Checks& non_negative(const char* name, double value) {
    return number(name, std::isfinite(value) && value >= 0, "a finite number of at least 0");
  }

  Checks& within(const char* name, double value, double low, double high) {
    if (ok() && !(value >= low && value <= high)) {
      status_ = {DPO_ERR_RANGE, -1, std::string(name) + ": must be from " + std::to_string(low) + " to " + std::to_string(high)};
    }
    return *this;
  }

  /// Every element of a floating-point tensor is finite.
  Checks& finite_contents(const char* name, const dpo_tensor& tensor);
  /// Every element is a row of the vocabulary or DPO_IGNORED_TARGET.
  Checks& target_contents(const dpo_tensor& targets, std::int64_t vocabulary);
  /// Starts at 0, never falls, ends at `rows`.
  Checks& offset_contents(const dpo_tensor& offsets, std::int64_t rows);

 private:
  Checks& number(const char* name, bool holds, const char* what) {
    if (ok() && !holds) status_ = {DPO_ERR_RANGE, -1, std::string(name) + ": must be " + what};
    return *this;
  }

  static bool has_shape(const dpo_tensor& tensor, std::initializer_list<std::int64_t> wanted) {
    if (tensor.rank != static_cast<std::int32_t>(wanted.size())) return false;
    const std::int64_t* extent = tensor.shape;
    for (const std::int64_t want : wanted) {
      if (want < 0 ? *extent < 1 : *extent != want) return false;
      ++extent;
    }
    return true;
  }

  static std::string extents(const std::int64_t* begin, const std::int64_t* end) {
    std::string text = "[";
    for (const std::int64_t* extent = begin; extent != end; ++extent) {
      if (extent != begin) text += ", ";
      text += *extent < 0 ? "any" : std::to_string(*extent);
    }
    return text + "]";
  }

  static std::string shape_message(const char* name, const dpo_tensor& tensor, std::initializer_list<std::int64_t> wanted) {
    return std::string(name) + ": expected shape " + extents(wanted.begin(), wanted.end()) + ", got " +
           extents(tensor.shape, tensor.shape + tensor.rank);
  }

  Status status_;
};

}  // namespace dpo
