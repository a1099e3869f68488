// As many rows as are worked on at a time, with everything that their pairs need between the steps of a call. What lies in memory
// is little enough to stay in cache.
#pragma once

#include <algorithm>
#include <array>

#include "native/cuda/pair_maps.h"
#include "native/cuda/pair_points.h"

namespace dpo::cuda {

struct PairShape {
  std::int64_t depth, sides;
  bool normalized;
};

class PairChunk {
 public:
  /// `terms` of values alone has no rows.
  PairChunk(Call& call, const KernelMembers& members, const PairShape& shape, std::int64_t rows, const ParameterTerms& terms,
            Carver from)
      : call_(call), members_(members) {
    const std::int64_t row_count = (1 + shape.sides) * rows;
    rows_ = {rows,
             shape.depth,
             shape.sides,
             shape.normalized,
             from.take(row_count * shape.depth),
             from.take(row_count),
             from.take(row_count)};
    points_ = PairPoints::carve(from, members, rows_);
    for (std::int32_t m = 0; m < members.count(); ++m) {
      const auto at = static_cast<std::size_t>(m);
      if (members[m].maps_differences()) mapped_[at] = from.take(rows_.pairs() * members[m].width);
      if (members[m].map == KernelMap::landmarks)
        spectral_[at] = SpectralScratch::carve(from, members[m], row_count, points_.log_scales + m * row_count);
    }
    if (terms.rows > 0) grads_ = PairGradients::carve(from, members, rows_, terms);
    size_ = from.used();
  }

  /// Numbers in double that it takes.
  std::int64_t size() const { return size_; }
  const PairRows& rows() const { return rows_; }
  const PairPoints& points() const { return points_; }
  const PairGradients& grads() const { return grads_; }

  /// ln K, once the rows are loaded.
  void evaluate() const {
    measure_pairs(call_, rows_, points_);
    for (std::int32_t m = 0; m < members_.count(); ++m) {
      const auto at = static_cast<std::size_t>(m);
      if (members_[m].maps_differences()) map_differences(call_, members_[m], m, rows_, points_, mapped_[at]);
      if (members_[m].map == KernelMap::landmarks) map_to_features(call_, members_[m], m, rows_, points_, spectral_[at]);
    }
    evaluate_pairs(call_, rows_, points_);
  }

  /// From the upstream of the call's `all_rows` rows, of which these begin at `first`: adds the gradients of the parameters to
  /// `sums` and prepares those of the rows.
  void pull_back(const Scalars& upstream, std::int64_t all_rows, std::int64_t first, double* sums) const {
    pull_back_pairs(call_, rows_, points_, upstream, all_rows, first, grads_);
    if (grads_.along) call_.fill(grads_.along, 0, static_cast<std::size_t>(rows_.operands() * rows_.rows) * sizeof(double));
    Accumulate differences = Accumulate::no, features = Accumulate::no;
    for (std::int32_t m = 0; m < members_.count(); ++m) {
      const KernelMember& member = members_[m];
      const auto at = static_cast<std::size_t>(m);
      double* factor = sums + members_.places().factors[at];
      if (member.map == KernelMap::diagonal) {
        add_diagonal_gradient(call_, rows_, member.matrix, grads_.seen + m * rows_.pairs(), factor);
      } else if (member.map == KernelMap::landmarks) {
        pull_back_features(call_, member, m, rows_, points_, spectral_[at], grads_, first_term(members_, m), features);
        features = Accumulate::yes;
      } else if (member.maps_differences()) {
        pull_back_differences(call_, member, m, rows_, points_, mapped_[at], grads_, differences, factor);
        differences = Accumulate::yes;
      }
    }
    add_parameter_terms(call_, rows_.pairs(), grads_.terms, sums);
  }

 private:
  Call& call_;
  const KernelMembers& members_;
  PairRows rows_{};
  PairPoints points_{};
  PairGradients grads_{};
  std::array<double*, DPO_MAX_MEMBERS> mapped_{};            // factor, frequencies: [pairs, width]
  std::array<SpectralScratch, DPO_MAX_MEMBERS> spectral_{};  // of the rows of all operands
  std::int64_t size_;
};

/// The rows of a call, chunk by chunk in one piece of memory, by shapes alone.
class PairChunks {
 public:
  PairChunks(Call& call, const KernelMembers& members, const PairShape& shape, std::int64_t rows, const ParameterTerms& terms)
      : call_(call), members_(members), shape_(shape), terms_(terms), rows_(rows) {
    constexpr std::int64_t kNumbers = std::int64_t{1} << 22;  // 32 MiB
    at_once_ = std::clamp<std::int64_t>(kNumbers / chunk(1, nullptr).size(), 1, std::max<std::int64_t>(rows, 1));
    memory_ = call.allocate<double>(chunk(at_once_, nullptr).size());
  }

  /// Calls body(chunk, first row).
  template <class Body>
  void for_each(const Body& body) const {
    for (std::int64_t first = 0; first < rows_ && call_.ok(); first += at_once_)
      body(chunk(std::min(at_once_, rows_ - first), memory_), first);
  }

 private:
  PairChunk chunk(std::int64_t rows, double* memory) const { return {call_, members_, shape_, rows, terms_, Carver(memory)}; }

  Call& call_;
  const KernelMembers& members_;
  PairShape shape_;
  ParameterTerms terms_;
  std::int64_t rows_, at_once_;
  double* memory_;
};

}  // namespace dpo::cuda
