// The transports of rows whose supports and costs are known.
#include "native/cuda/sinkhorn_measures.h"

namespace dpo::cuda {
namespace {

constexpr unsigned kSolverThreads = 256;

/// One transport of a slot: of p to q, of p to itself or of q to itself.
struct SlotTransport {
  std::int64_t transport, slot, part;

  __device__ SlotTransport(const TransportMemory& memory, std::int64_t number)
      : transport(number), slot(number / memory.parts), part(number % memory.parts) {}
  __device__ const double* log_p(const TransportMemory& memory) const { return memory.log_mass(slot, part == 2 ? 1 : 0); }
  __device__ const double* log_q(const TransportMemory& memory) const { return memory.log_mass(slot, part == 1 ? 0 : 1); }
};

__global__ __launch_bounds__(kSolverThreads, 1) void solve_transports(TransportMemory memory, math::SinkhornOptions options) {
  const SlotTransport of(memory, blockIdx.x);
  const std::int64_t support = memory.sizes[of.slot];
  if (support == 0) return;
  SinkhornMeasures measures(Carver(memory.work + of.transport * memory.work_numbers), memory.support);
  measures.load(of.log_p(memory), of.log_q(memory), support, memory.costs_of(of.slot));
  const math::CostRange range = measures.lower_costs();
  double value = std::numeric_limits<double>::quiet_NaN();
  if (range.usable()) {
    math::Sinkhorn<SinkhornMeasures> sinkhorn(measures, options, range.width(), measures.symmetric());
    if (sinkhorn.solve()) {
      value = range.lowest + sinkhorn.value();
      if (memory.gradients && of.part < 2)
        measures.write_potentials(Measure::p, options.epsilon, of.log_p(memory), support, range.lowest,
                                  memory.potential(of.transport, 0));
      if (memory.gradients && of.part == 1)
        measures.write_potentials(Measure::q, options.epsilon, of.log_q(memory), support, 0, memory.potential(of.transport, 1));
    }
  }
  if (threadIdx.x == 0) memory.values[of.transport] = value;
}

/// Threads of a transport's block: by the support alone, because sums depend on it.
unsigned solver_threads(std::int64_t support) { return support <= 32 ? 32 : support <= 96 ? 128 : kSolverThreads; }

}  // namespace

std::int64_t solver_numbers(std::int64_t support) { return SinkhornMeasures(Carver(nullptr), support).numbers(); }

void launch_sinkhorn(Call& call, const dpo_transport_options& options, const TransportMemory& memory, std::int64_t rows) {
  const unsigned threads = solver_threads(memory.support);
  call.launch(solve_transports,
              {{static_cast<unsigned>(rows * memory.parts), 1, 1}, threads, merge_block_bytes<math::CostRange>(threads)}, memory,
              math::SinkhornOptions{options.epsilon, options.tolerance, options.max_iterations});
}

}  // namespace dpo::cuda
