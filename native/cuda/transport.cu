#include "native/cuda/transport.h"

#include "native/cuda/carver.h"
#include "native/cuda/top_k.h"
#include "native/math/transport.h"

namespace dpo::cuda {
namespace {

/// The words that a row's transport is between, and the logarithms of their probabilities among these.
struct ChooseSupport {
  static constexpr math::Moment moment = math::Moment::none;
  TransportMemory memory;
  std::int64_t first, top_k;  // the row of slot 0; 0: all words

  __host__ __device__ static double alpha() { return 0; }

  template <class S>
  __device__ __forceinline__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&, const Normalizers&) const {
    const std::int64_t slot = row.row() - first, columns = row.logits().columns;
    std::int64_t* words = memory.words_of(slot);
    const auto x = [&](std::int64_t i) { return row.map().mapped(row.logits().policy(i)); };
    const auto y = [&](std::int64_t i) { return row.map().mapped(row.logits().reference(i)); };
    const std::int64_t size = top_k > 0 ? choose(columns, x, y, words) : all(columns, words);
    if (threadIdx.x == 0) memory.sizes[slot] = size;
    __syncthreads();
    write_log_masses(size, words, x, memory.log_mass(slot, 0));
    write_log_masses(size, words, y, memory.log_mass(slot, 1));
  }

 private:
  __device__ __forceinline__ static std::int64_t all(std::int64_t columns, std::int64_t* words) {
    for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x) words[i] = i;
    return columns;
  }

  template <class X, class Y>
  __device__ __forceinline__ std::int64_t choose(std::int64_t columns, const X& x, const Y& y, std::int64_t* words) const {
    const auto x_key = [&](std::int64_t i) { return order_key(x(i)); };
    const auto y_key = [&](std::int64_t i) { return order_key(y(i)); };
    TopK of_x(columns, top_k, x_key), of_y(columns, top_k, y_key);
    return compact(
        columns,
        [&](std::int64_t i) {
          const bool exists = i < columns, in_x = of_x.takes(exists, exists ? x_key(i) : 0);
          return of_y.takes(exists, exists ? y_key(i) : 0) || in_x;
        },
        [&](std::int64_t i, std::int64_t place) { words[place] = i; });
  }

  template <class Logit>
  __device__ __forceinline__ static void write_log_masses(std::int64_t size, const std::int64_t* words, const Logit& logit,
                                                          double* to) {
    math::LogSumExp<double> sum;
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) sum.add(logit(words[i]));
    const math::Normalizer normalizer(merge_block_for_all(sum));
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) to[i] = normalizer.log_prob(logit(words[i]));
  }
};

/// Values and gradients from the transports.
struct TransportedRow {
  static constexpr math::Moment moment = math::Moment::none;
  TransportMemory memory;
  std::int64_t first;

  __host__ __device__ static double alpha() { return 0; }

  template <class S>
  __device__ __forceinline__ void run(const DivergenceRow<S, double>& row, const math::RowMoments&,
                                      const Normalizers& sums) const {
    const std::int64_t slot = row.row() - first;
    const double value = this->value(slot);
    if (value != value) {
      row.set_outcome(RowState::not_converged, 0);
      return;
    }
    if (!row.settle(value, sums)) return;
    find_gradient(slot);
    const double* gradient = memory.gradients + slot * memory.columns;
    row.write(
        sums, typename DivergenceRow<S, double>::Ratios(row.map(), sums),
        [&](std::int64_t i, const math::LogRatio<double>& r) { return PointGradient<double>{gradient[i], std::exp(r.lp)}; });
  }

 private:
  __device__ __forceinline__ double value(std::int64_t slot) const {
    const double* parts = memory.values + slot * memory.parts;
    double value = parts[0];
    for (int part = 1; part < memory.parts; ++part) value = math::less_self(value, parts[part]);
    return value;
  }

  /// ∂/∂p at a place of the support, up to a constant.
  __device__ __forceinline__ double potential(std::int64_t slot, bool symmetric, std::int64_t place) const {
    const std::int64_t transport = slot * memory.parts;
    const double f = memory.potential(transport, 0)[place];
    if (memory.parts == 1) return f;
    return f -
           math::self_potential(symmetric, memory.potential(transport + 1, 0)[place], memory.potential(transport + 1, 1)[place]);
  }

  /// p·(f − Σ p f) in the places of its words, and 0 for all others.
  __device__ __forceinline__ void find_gradient(std::int64_t slot) const {
    const std::int64_t size = memory.sizes[slot];
    const double* log_p = memory.log_mass(slot, 0);
    const bool symmetric = memory.own_costs || *memory.asymmetric == 0;
    double* gradient = memory.gradients + slot * memory.columns;
    Sum mean;
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x)
      mean.value += std::exp(log_p[i]) * potential(slot, symmetric, i);
    mean = merge_block_for_all(mean);
    for (std::int64_t i = threadIdx.x; i < memory.columns; i += blockDim.x) gradient[i] = 0;
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x)
      gradient[memory.words_of(slot)[i]] = std::exp(log_p[i]) * (potential(slot, symmetric, i) - mean.value);
    __syncthreads();
  }
};

__global__ void widen_cost(const float* from, std::int64_t count, double* to) {
  for_each_index(count, [=](std::int64_t i) { to[i] = static_cast<double>(from[i]); });
}

__global__ void find_asymmetry(const double* costs, std::int64_t size, Alarm* asymmetric) {
  for_each_element(size, size, [=](std::int64_t i, std::int64_t j, std::int64_t index) {
    if (j < i && costs[index] != costs[j * size + i]) atomicMax(asymmetric, 1ull);
  });
}

const double* wide_cost(Call& call, const dpo_tensor& cost) {
  if (cost.dtype == DPO_F64) return call.input<double>(cost);
  const std::int64_t count = cost.shape[0] * cost.shape[1];
  auto* wide = call.allocate<double>(count);
  call.launch(widen_cost, passes(count), call.input<float>(cost), count, wide);
  return wide;
}

bool is_sinkhorn(const dpo_transport_options& options) {
  return static_cast<math::TransportMethod>(options.method) == math::TransportMethod::sinkhorn;
}

/// Gives `memory` its parts of a buffer; of no buffer, only counts.
void carve(Carver& buffer, const dpo_transport_options& options, bool has_gradient, TransportMemory& memory) {
  const std::int64_t slots = memory.slots, support = memory.support, transports = slots * memory.parts;
  const bool embedded = options.embeddings.data != nullptr;
  const bool cosine = static_cast<math::TransportMetric>(options.metric) == math::TransportMetric::cosine;
  memory.sizes = buffer.take<std::int64_t>(slots);
  memory.words = buffer.take<std::int64_t>(slots * support);
  memory.log_masses = buffer.take(slots * 2 * support);
  if (embedded) memory.own_costs = buffer.take(slots * support * support);
  if (embedded && cosine) memory.lengths = buffer.take(slots * support);
  if (has_gradient) memory.gradients = buffer.take(slots * memory.columns);
  memory.values = buffer.take(transports);
  memory.potentials = buffer.take(transports * 2 * support);
  memory.work = buffer.take(transports * memory.work_numbers);
}

}  // namespace

TransportMemory TransportMemory::of(Call& call, const dpo_divergence_kind& divergence, std::int64_t rows, std::int64_t columns,
                                    bool has_gradient) {
  // A GiB unless one row takes more, whatever the call's memory limit, which is for logits; and rows that fill any device.
  constexpr std::int64_t kNumbers = std::int64_t{1} << 27, kMostSlots = 1024;
  const dpo_transport_options& options = divergence.transport;
  TransportMemory memory{};
  if (static_cast<math::Divergence>(divergence.kind) != math::Divergence::transport || !is_sinkhorn(options)) return memory;
  memory.slots = 1;
  memory.support = options.top_k > 0 ? std::min(columns, 2 * options.top_k) : columns;
  memory.columns = columns;
  memory.parts = options.debias ? 3 : 1;
  memory.work_numbers = solver_numbers(memory.support);
  Carver counter(nullptr);
  carve(counter, options, has_gradient, memory);
  memory.slots = std::clamp<std::int64_t>(kNumbers / counter.used(), 1, std::min(std::max<std::int64_t>(rows, 1), kMostSlots));
  Carver buffer(call.allocate<double>(memory.slots * counter.used()));
  if (!call.ok()) return memory;
  carve(buffer, options, has_gradient, memory);
  memory.embeddings = call.input<char>(options.embeddings);
  if (!options.cost.data) return memory;
  Alarm* asymmetric = new_alarm(call);
  memory.costs = wide_cost(call, options.cost);
  memory.asymmetric = asymmetric;
  call.launch(find_asymmetry, passes(columns * columns), memory.costs, columns, asymmetric);
  return memory;
}

template <class S>
void launch_transport(Call& call, const DivergenceRows<S>& rows, const dpo_transport_options& of,
                      const dpo_logit_options& options, const TransportMemory& memory) {
  if (!is_sinkhorn(of)) {
    call.fail(DPO_ERR_BACKEND, "divergence: the exact transport on a cost is not supported on this backend");
    return;
  }
  DivergenceRows<S> chunk = rows;
  for (chunk.first = 0; chunk.first < rows.count && call.ok(); chunk.first = chunk.count) {
    chunk.count = std::min(rows.count, chunk.first + memory.slots);
    const std::int64_t slots = chunk.count - chunk.first;
    call.fill(memory.sizes, 0, static_cast<std::size_t>(slots) * sizeof *memory.sizes);
    launch_rows<S, double>(call, chunk, options, ChooseSupport{memory, chunk.first, of.top_k});
    if (memory.own_costs) launch_embedding_costs(call, of, memory, slots);
    launch_sinkhorn(call, of, memory, slots);
    launch_rows<S, double>(call, chunk, options, TransportedRow{memory, chunk.first});
  }
}

#define DPO_TRANSPORT(S)                                                                                                     \
  template void launch_transport<S>(Call&, const DivergenceRows<S>&, const dpo_transport_options&, const dpo_logit_options&, \
                                    const TransportMemory&);
DPO_TRANSPORT(float)
DPO_TRANSPORT(double)
DPO_TRANSPORT(__half)
DPO_TRANSPORT(__nv_bfloat16)

}  // namespace dpo::cuda
