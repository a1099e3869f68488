#include "native/cpu/divergence_row.h"

#include "native/cpu/generator_divergence.h"
#include "native/cpu/max_log_ratio.h"
#include "native/cpu/ordered_transport.h"
#include "native/cpu/point_divergence.h"
#include "native/cpu/transport_row.h"
#include "native/cpu/wide_divergence.h"

namespace dpo::cpu {
namespace {

using math::Divergence;

/// The row functions of the kinds that are no sum over independent points. They compute in double precision.
std::unique_ptr<DivergenceRow<double>> make_whole_row(const dpo_divergence_kind& divergence, std::int64_t columns,
                                                      const dpo_tensor& generator_values, const dpo_tensor& generator_slopes) {
  switch (static_cast<Divergence>(divergence.kind)) {
    case Divergence::renyi:
      return std::make_unique<MaxLogRatio>(columns);
    case Divergence::f:
      return std::make_unique<GeneratorDivergence>(columns, generator_values, generator_slopes);
    case Divergence::wasserstein:
      return std::make_unique<OrderedTransport>(columns, divergence.parameter);
    case Divergence::transport:
      return std::make_unique<TransportRow>(columns, divergence.transport);
    default:
      return nullptr;
  }
}

/// Whether the functor's sums may hang on a single point so far that a map other than the identity rounds too much in single
/// precision.
template <class T, class Map, class Functor>
bool wants_double(const Functor& functor) {
  if constexpr (sizeof(T) == 4 && !std::is_same_v<Map, PlainLogits<T>> && requires { functor.explodes(); })
    return functor.explodes();
  return false;
}

}  // namespace

template <class S>
std::unique_ptr<DivergenceRow<S>> make_divergence_row(const dpo_divergence_kind& divergence, const dpo_logit_options& options,
                                                      std::int64_t columns, const dpo_tensor& generator_values,
                                                      const dpo_tensor& generator_slopes) {
  using Row = std::unique_ptr<DivergenceRow<S>>;
  const auto kind = static_cast<Divergence>(divergence.kind);
  return with_logit_map<compute_t<S>>(options, [&]<class Map>(const Map& map) -> Row {
    const auto widened = [&](std::unique_ptr<DivergenceRow<double>> row) -> Row {
      return std::make_unique<WideDivergence<S, Map>>(map, columns, std::move(row));
    };
    Row row = math::with_divergence(kind, divergence.parameter, [&]<class Functor>(const Functor& functor) -> Row {
      using Wide = PointDivergence<double, PlainLogits<double>, Functor>;
      if (wants_double<compute_t<S>, Map>(functor))
        return widened(std::make_unique<Wide>(PlainLogits<double>{}, columns, functor));
      return std::make_unique<PointDivergence<S, Map, Functor>>(map, columns, functor);
    });
    return row ? std::move(row) : widened(make_whole_row(divergence, columns, generator_values, generator_slopes));
  });
}

#define DPO_INSTANTIATE(S)                                                                                                \
  template std::unique_ptr<DivergenceRow<S>> make_divergence_row<S>(const dpo_divergence_kind&, const dpo_logit_options&, \
                                                                    std::int64_t, const dpo_tensor&, const dpo_tensor&);
DPO_INSTANTIATE(float)
DPO_INSTANTIATE(double)
DPO_INSTANTIATE(f16)
DPO_INSTANTIATE(bf16)
#undef DPO_INSTANTIATE

}  // namespace dpo::cpu
