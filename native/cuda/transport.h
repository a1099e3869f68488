// Optimal transport on a cost between two rows of logits, by Sinkhorn's iteration: first every row's support, then the costs
// there, then the transports, a block each, and last values and gradients. As many rows at a time as there is memory for.
#pragma once

#include "native/cuda/alarm.h"
#include "native/cuda/divergence_row.h"

namespace dpo::cuda {

/// Costs between the places of a support.
struct TransportCosts {
  const double* values;
  std::int64_t stride;
  __device__ double at(std::int64_t from, std::int64_t to) const { return values[from * stride + to]; }
};

/// What the rows in work need. Each has a slot, with one transport in it, or three where it is debiased.
struct TransportMemory {
  std::int64_t slots, support, columns;  // support: of no row more words
  int parts;                             // transports of a slot
  std::int64_t *sizes, *words;           // [slots] the words of each row's support (0: nothing to do); [slots, support] ascending
  double* log_masses;                    // [slots, 2, support]
  const double* costs;                   // [support, support] of all slots; null where there are own_costs
  const Alarm* asymmetric;               // whether they differ by direction
  const void* embeddings;
  double *own_costs, *lengths;         // [slots, support, support], [slots, support] of the embeddings; null where not wanted
  double* gradients;                   // [slots, columns] in the logits; null where not wanted
  double *values, *potentials, *work;  // of each transport: NaN where it does not converge; [2, support]; work_numbers
  std::int64_t work_numbers;

  /// Nothing for other divergences. A given cost is uploaded and widened.
  static TransportMemory of(Call& call, const dpo_divergence_kind& divergence, std::int64_t rows, std::int64_t columns,
                            bool has_gradient);

  __device__ double* log_mass(std::int64_t slot, int measure) const { return log_masses + (2 * slot + measure) * support; }
  __device__ std::int64_t* words_of(std::int64_t slot) const { return words + slot * support; }
  __device__ TransportCosts costs_of(std::int64_t slot) const {
    return {own_costs ? own_costs + slot * support * support : costs, support};
  }
  __device__ double* potential(std::int64_t transport, int measure) const {
    return potentials + (2 * transport + measure) * support;
  }
};

template <class S>
void launch_transport(Call& call, const DivergenceRows<S>& rows, const dpo_transport_options& of,
                      const dpo_logit_options& options, const TransportMemory& memory);

/// Fills own_costs of the first slots. Compiled in embedding_cost.cu.
void launch_embedding_costs(Call& call, const dpo_transport_options& options, const TransportMemory& memory, std::int64_t slots);

/// Numbers that one transport takes, and the transports of the first slots. Compiled in sinkhorn.cu.
std::int64_t solver_numbers(std::int64_t support);
void launch_sinkhorn(Call& call, const dpo_transport_options& options, const TransportMemory& memory, std::int64_t slots);

}  // namespace dpo::cuda
