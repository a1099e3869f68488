// How an optimal transport is found, and what its cost is.
#pragma once

#include <cstdint>

namespace dpo::math {

enum class TransportMethod : std::int32_t { sinkhorn, exact };

/// The distance between two embeddings. cosine is 1 − cos.
enum class TransportMetric : std::int32_t { euclidean, sqeuclidean, cosine };

}  // namespace dpo::math
