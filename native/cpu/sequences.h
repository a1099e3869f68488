// Packed sequences: where each one's tokens lie, how many count, and with which weight.
#pragma once

#include <algorithm>
#include <cstdint>

#include "native/core/sequence_log_probs.h"
#include "native/cpu/operation.h"
#include "native/math/sequence_weight.h"

namespace dpo::cpu {

class Sequences {
 public:
  Sequences(const dpo_tensor& targets, const dpo_tensor& offsets, const dpo_sequence_options& options)
      : targets_(data<std::int32_t>(targets)),
        offsets_(data<std::int32_t>(offsets)),
        options_(options),
        count_(offsets.shape[0] - 1) {}

  std::int64_t count() const { return count_; }
  std::int64_t pairs() const { return count_ / 2; }
  std::int64_t begin(std::int64_t sequence) const { return offsets_[sequence]; }
  std::int64_t end(std::int64_t sequence) const { return offsets_[sequence + 1]; }

  std::int64_t token_count(std::int64_t sequence) const {
    return std::count_if(targets_ + begin(sequence), targets_ + end(sequence),
                         [](std::int32_t t) { return t != DPO_IGNORED_TARGET; });
  }

  /// Calls body(token, weight) for every counted token of the sequence.
  template <class Body>
  void for_each_token(std::int64_t sequence, const Body& body) const {
    const std::int64_t mine = token_count(sequence);
    const std::int64_t shared = std::min(mine, token_count((sequence + pairs()) % count_));
    const double scale = options_.reduction == DPO_SEQUENCE_MEAN && mine > 0 ? 1.0 / static_cast<double>(mine) : 1.0;
    std::int64_t position = 0;
    for (std::int64_t token = begin(sequence); token < end(sequence); ++token) {
      if (targets_[token] == DPO_IGNORED_TARGET) continue;
      body(token, scale * math::sequence_weight(position, shared, options_.ld_alpha));
      ++position;
    }
  }

 private:
  const std::int32_t* targets_;
  const std::int32_t* offsets_;
  dpo_sequence_options options_;
  std::int64_t count_;
};

}  // namespace dpo::cpu
