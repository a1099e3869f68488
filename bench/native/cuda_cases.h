// Calls of the CUDA backend for which memory traffic is counted, and the least that each has to move. A case is one line of
// cuda_cases.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "native/core/job.h"
#include "native/simt/traffic.h"

namespace dpo::bench {

/// Rows of logits of which there are `rows`, of `columns` each, and are stored as `dtype`.
struct Size {
  std::int64_t rows, columns;
  std::int32_t dtype;
};

/// The tensors of one call: it fills and keeps them, and adds up their bytes.
class Tensors {
 public:
  explicit Tensors(const Size& size) : size(size) {}
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;

  const Size size;
  /// What bytes are divided by: what the operation has most of.
  std::int64_t elements = 0;

  /// Numbers about `middle`, those of every call of this other ones.
  dpo_tensor input(std::vector<std::int64_t> shape, std::int32_t dtype, double middle = 0);
  /// 0, step, 2·step …, each modulo `below`.
  dpo_tensor indices(std::int64_t count, std::int64_t step, std::int64_t below = INT32_MAX);
  dpo_tensor result(std::vector<std::int64_t> shape, std::int32_t dtype);
  dpo_tensor logits() { return input({size.rows, size.columns}, size.dtype); }

  std::int64_t least_read() const { return least_read_; }
  std::int64_t least_written() const { return least_written_; }

 private:
  dpo_tensor tensor(const std::vector<std::int64_t>& shape, std::int32_t dtype);

  std::deque<std::vector<unsigned char>> memory_;
  std::uint32_t seed_ = 0;
  std::int64_t least_read_ = 0, least_written_ = 0;
};

struct Case {
  std::string operation, what;
  std::function<dpo_status(const dpo_backend&, dpo_job&, Tensors&)> run;
};

const std::vector<Case>& cuda_cases();

struct CountedCase {
  std::int64_t elements = 0, least_read = 0, least_written = 0, read = 0, written = 0;
  std::vector<simt::LaunchTraffic> launches;
  std::string failure;  // or nothing

  double ratio() const { return static_cast<double>(read + written) / static_cast<double>(least_read + least_written); }
};

CountedCase count(const Case& of, const Size& size);

}  // namespace dpo::bench
