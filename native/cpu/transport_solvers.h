// What solve_transport consists of: one transport, without debias, by either method.
#pragma once

#include <algorithm>
#include <limits>

#include "native/cpu/simd.h"
#include "native/cpu/transport.h"
#include "native/math/transport.h"

namespace dpo::cpu {

/// Rows of a side's cost and kernel have this many elements for a number of points on the other side. The places past the
/// points repeat the last point, without its mass, so that whole vectors can be computed.
inline std::size_t padded(std::size_t points) {
  constexpr auto step = static_cast<std::size_t>(lanes<double>);
  return (points + step - 1) / step * step;
}

/// Fills points, masses and costs of both sides; the lowest cost is taken off all.
math::CostRange load_sides(const TransportProblem& problem, TransportWorkspace& workspace);

/// Potentials that are not wanted are empty; g is never wanted without f. f is not centred yet.
TransportResult sinkhorn_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                   std::span<double> g);
TransportResult exact_transport(const TransportProblem& problem, TransportWorkspace& workspace, std::span<double> f,
                                std::span<double> g);

inline TransportResult unusable_cost() { return {std::numeric_limits<double>::quiet_NaN(), false, 0, 0}; }

}  // namespace dpo::cpu
