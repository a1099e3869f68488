// Optimal transport on a cost as a divergence of two rows of logits.
#pragma once

#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <vector>

#include "native/cpu/softmax_divergence.h"
#include "native/cpu/transport.h"

namespace dpo::cpu {

/// As many objects as threads ask for one at once, each used by one after the other.
template <class Object>
class Pool {
 public:
  template <class Body>
  auto with(const Body& body) {
    std::unique_ptr<Object> object = take();
    auto result = body(*object);
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(object));
    return result;
  }

 private:
  std::unique_ptr<Object> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Object>();
    std::unique_ptr<Object> object = std::move(free_.back());
    free_.pop_back();
    return object;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Object>> free_;
};

/// transport_divergence of the mapped logits of a row.
class TransportRow final : public LogitDivergence {
 public:
  TransportRow(std::int64_t columns, const dpo_transport_options& options) : LogitDivergence(columns), options_(options) {}

  /// Whether the iterations converge is not known beforehand.
  double safe_range() const override { return -1; }

 protected:
  bool surely_finite(const math::RowMoments&) const override { return false; }

  RowTerms terms(const double* x, const double* y, std::int64_t, const math::RowMoments& found,
                 const WeightedPoints<double>* points, double*) const override {
    const Normalizers sums(found);
    const auto size = static_cast<std::size_t>(columns());
    // The gradient is one in the logits already: weights that sum to 0.
    const std::span<double> gradient = points ? std::span(points->weight, size) : std::span<double>();
    if (points) {
      for (std::size_t i = 0; i < size; ++i) points->p[i] = std::exp(x[i] - sums.x.log_sum_exp());
    }
    try {
      const TransportResult result = workspaces_.with([&](TransportWorkspace& workspace) {
        return transport_divergence(options_, std::span(x, size), std::span(y, size), workspace, gradient);
      });
      return {.value = result.value, .failure = result.converged ? RowState::finite : RowState::not_converged};
    } catch (const std::bad_alloc&) {  // a thread of the pool would not survive it
      return {.value = 0, .failure = RowState::out_of_memory};
    }
  }

 private:
  dpo_transport_options options_;
  mutable Pool<TransportWorkspace> workspaces_;
};

}  // namespace dpo::cpu
