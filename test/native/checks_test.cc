#include "native/core/checks.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "native/core/token_log_probs.h"

namespace dpo {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// What a tensor of this shape looks like to checks that do not read it.
dpo_tensor shaped(std::initializer_list<std::int64_t> shape, std::int32_t dtype = DPO_F32) {
  static float anything = 0;
  dpo_tensor tensor{.data = &anything, .shape = {}, .rank = static_cast<std::int32_t>(shape.size()), .dtype = dtype, .place = DPO_HOST};
  std::copy(shape.begin(), shape.end(), tensor.shape);
  return tensor;
}

template <class T>
dpo_tensor holding(std::vector<T>& values, std::int32_t dtype) {
  return {.data = values.data(), .shape = {static_cast<std::int64_t>(values.size())}, .rank = 1, .dtype = dtype, .place = DPO_HOST};
}

const dpo_tensor kMissing{.data = nullptr, .shape = {}, .rank = 0, .dtype = DPO_F32, .place = DPO_HOST};

void expect(const Checks& checks, dpo_status code, const std::string& message, std::int64_t index = -1) {
  EXPECT_EQ(checks.status().code, code) << checks.status().message;
  EXPECT_EQ(checks.status().message, message);
  EXPECT_EQ(checks.status().index, index);
}

void expect_ok(const Checks& checks) { EXPECT_TRUE(checks.ok()) << checks.status().message; }

TEST(Checks, BeginWell) { expect_ok(Checks()); }

TEST(Checks, TheFirstFailureIsKept) {
  Checks checks;
  checks.require(true, DPO_ERR_RANGE, "no").require(false, DPO_ERR_SHAPE, "first", 3).require(false, DPO_ERR_RANGE, "second");
  expect(checks, DPO_ERR_SHAPE, "first", 3);
  checks.given("x", kMissing)
      .dtype("x", shaped({1}), DPO_F64)
      .finite("x", kNan)
      .within("x", 9, 0, 1)
      .shape("x", shaped({1}), {2});
  checks.floating("x", shaped({1}, DPO_I32)).arithmetic("x", shaped({1}, DPO_F16));
  expect(checks, DPO_ERR_SHAPE, "first", 3);
}

TEST(Checks, Shape) {
  expect_ok(Checks().shape("x", shaped({2, 3}), {2, 3}));
  expect_ok(Checks().shape("x", shaped({2, 3}), {-1, 3}));
  expect(Checks().shape("x", shaped({2, 3}), {2, 4}), DPO_ERR_SHAPE, "x: expected shape [2, 4], got [2, 3]");
  expect(Checks().shape("x", shaped({2, 3}), {-1}), DPO_ERR_SHAPE, "x: expected shape [any], got [2, 3]");
  expect(Checks().shape("x", shaped({0, 3}), {-1, 3}), DPO_ERR_SHAPE, "x: expected shape [any, 3], got [0, 3]");
  expect(Checks().shape("x", kMissing, {2}), DPO_ERR_SHAPE, "x: is missing");
}

TEST(Checks, OptionalShape) {
  expect_ok(Checks().optional_shape("x", kMissing, {2}));
  expect_ok(Checks().optional_shape("x", shaped({2}), {2}));
  expect(Checks().optional_shape("x", shaped({3}), {2}), DPO_ERR_SHAPE, "x: expected shape [2], got [3]");
}

TEST(Checks, Dtype) {
  expect_ok(Checks().dtype("x", shaped({1}, DPO_BF16), DPO_BF16));
  expect_ok(Checks().dtype("x", kMissing, DPO_F64));
  expect(Checks().dtype("x", shaped({1}, DPO_F16), DPO_F64), DPO_ERR_DTYPE, "x: expected f64, got f16");
}

TEST(Checks, KindsOfDtype) {
  for (const std::int32_t dtype : {DPO_F32, DPO_F64, DPO_F16, DPO_BF16}) expect_ok(Checks().floating("x", shaped({1}, dtype)));
  expect(Checks().floating("x", shaped({1}, DPO_I32)), DPO_ERR_DTYPE, "x: expected a floating-point tensor, got i32");
  for (const std::int32_t dtype : {DPO_F32, DPO_F64}) expect_ok(Checks().arithmetic("x", shaped({1}, dtype)));
  expect(Checks().arithmetic("x", shaped({1}, DPO_BF16)), DPO_ERR_DTYPE, "x: expected f32 or f64, got bf16");
  expect(Checks().arithmetic("x", shaped({1}, DPO_I32)), DPO_ERR_DTYPE, "x: expected f32 or f64, got i32");
  expect_ok(Checks().floating("x", kMissing).arithmetic("x", kMissing));
}

TEST(Checks, Numbers) {
  expect_ok(Checks().finite("x", -1e300).positive("x", 1e-300).non_negative("x", 0).within("x", 1, 0, 1).within("x", 0, 0, 1));
  for (const double value : {kNan, kInf, -kInf}) {
    expect(Checks().finite("x", value), DPO_ERR_RANGE, "x: must be a finite number");
    expect(Checks().positive("x", value), DPO_ERR_RANGE, "x: must be a finite number greater than 0");
    expect(Checks().non_negative("x", value), DPO_ERR_RANGE, "x: must be a finite number of at least 0");
    EXPECT_EQ(Checks().within("x", value, 0, 1).status().code, DPO_ERR_RANGE);
  }
  expect(Checks().positive("x", 0), DPO_ERR_RANGE, "x: must be a finite number greater than 0");
  expect(Checks().non_negative("x", -1e-300), DPO_ERR_RANGE, "x: must be a finite number of at least 0");
  EXPECT_EQ(Checks().within("x", 1.0000001, 0, 1).status().code, DPO_ERR_RANGE);
}

TEST(Checks, FiniteContents) {
  std::vector<float> narrow{1, -2, 3e38f};
  std::vector<double> wide{1, 1e308, -0.0};
  expect_ok(Checks().finite_contents("x", holding(narrow, DPO_F32)).finite_contents("x", holding(wide, DPO_F64)));
  expect_ok(Checks().finite_contents("x", kMissing));
  narrow[2] = static_cast<float>(kInf);
  wide[1] = kNan;
  expect(Checks().finite_contents("x", holding(narrow, DPO_F32)), DPO_ERR_NONFINITE, "x: element 2 is not finite", 2);
  expect(Checks().finite_contents("x", holding(wide, DPO_F64)), DPO_ERR_NONFINITE, "x: element 1 is not finite", 1);
}

TEST(Checks, FiniteContentsOf16Bits) {
  std::vector<std::uint16_t> half{0x7bff, 0xfbff, 0x0001}, brain{0x7f7f, 0xff7f, 0x8000};  // the largest of each, and near 0
  expect_ok(Checks().finite_contents("x", holding(half, DPO_F16)).finite_contents("x", holding(brain, DPO_BF16)));
  for (const std::uint16_t bad : {0x7c00, 0xfc00, 0x7e00}) {
    half[2] = bad;
    expect(Checks().finite_contents("x", holding(half, DPO_F16)), DPO_ERR_NONFINITE, "x: element 2 is not finite", 2);
  }
  for (const std::uint16_t bad : {0x7f80, 0xff80, 0x7fc0}) {
    brain[1] = bad;
    expect(Checks().finite_contents("x", holding(brain, DPO_BF16)), DPO_ERR_NONFINITE, "x: element 1 is not finite", 1);
  }
}

TEST(Checks, TargetContents) {
  std::vector<std::int32_t> targets{0, 9, DPO_IGNORED_TARGET};
  expect_ok(Checks().target_contents(holding(targets, DPO_I32), 10));
  expect(Checks().target_contents(holding(targets, DPO_I32), 9), DPO_ERR_RANGE,
         "targets: element 1 is 9, outside 0..8 and not -100", 1);
  targets = {-1};
  expect(Checks().target_contents(holding(targets, DPO_I32), 10), DPO_ERR_RANGE,
         "targets: element 0 is -1, outside 0..9 and not -100", 0);
}

TEST(Checks, OffsetContents) {
  std::vector<std::int32_t> offsets{0, 3, 3, 8};
  expect_ok(Checks().offset_contents(holding(offsets, DPO_I32), 8));
  expect(Checks().offset_contents(holding(offsets, DPO_I32), 9), DPO_ERR_RANGE, "offsets: the last must be the number of rows",
         3);
  offsets = {0, 5, 3, 8};
  expect(Checks().offset_contents(holding(offsets, DPO_I32), 8), DPO_ERR_RANGE, "offsets: must not fall", 2);
  offsets = {1, 8};
  expect(Checks().offset_contents(holding(offsets, DPO_I32), 8), DPO_ERR_RANGE, "offsets: the first must be 0", 0);
}

}  // namespace
}  // namespace dpo
