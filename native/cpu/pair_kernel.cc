#include "native/core/pair_kernel.h"

#include <algorithm>
#include <cmath>

#include "native/cpu/operation.h"
#include "native/cpu/operations.h"
#include "native/math/log_kernels.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kElementsPerChunk = 16384;
constexpr const char* kSideNames[DPO_MAX_SIDES] = {"v", "v[1]"};
constexpr double kSmallestSafeSquare = 1e-280;  // below it squares lose digits
constexpr int kPartialSums = 8;                 // independent sums that the compiler can keep in vectors

/// Σ term(i), in an order that depends on `count` alone.
template <class Term>
double sum_over(std::int64_t count, const Term& term) {
  double sums[kPartialSums] = {};
  std::int64_t i = 0;
  for (; i + kPartialSums <= count; i += kPartialSums) {
    for (int lane = 0; lane < kPartialSums; ++lane) sums[lane] += term(i + lane);
  }
  for (; i < count; ++i) sums[0] += term(i);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

/// What the kernels see of one pair of rows.
struct PairGeometry {
  double u_scale, v_scale;  // 1/‖row‖ when rows are normalised, else 1
  double r2;                // ‖u·u_scale − v·v_scale‖²
};

template <class S>
double element(const S* row, std::int64_t i) {
  return static_cast<double>(to_compute(row[i]));
}

/// 1/‖row‖; infinite for a zero row. Rows whose squares leave the range of double are scaled first.
template <class S>
double inverse_norm(const S* row, std::int64_t depth) {
  const auto squares = [&](double scale) {
    return sum_over(depth, [=](std::int64_t i) { return (element(row, i) * scale) * (element(row, i) * scale); });
  };
  const double plain = squares(1);
  if (plain > kSmallestSafeSquare && std::isfinite(plain)) return 1 / std::sqrt(plain);
  double largest = 0;
  for (std::int64_t i = 0; i < depth; ++i) largest = std::max(largest, std::fabs(element(row, i)));
  const double scale = 1 / largest;
  return std::isfinite(scale) ? scale / std::sqrt(squares(scale)) : 1 / std::sqrt(plain);
}

template <class S>
PairGeometry geometry(const S* u, const S* v, std::int64_t depth, bool normalize) {
  PairGeometry pair{1, 1, 0};
  if (normalize) pair = {inverse_norm(u, depth), inverse_norm(v, depth), 0};
  pair.r2 = sum_over(depth, [&](std::int64_t i) {
    const double difference = element(u, i) * pair.u_scale - element(v, i) * pair.v_scale;
    return difference * difference;
  });
  return pair;
}

/// The rows of a call, cut into chunks, with room for one PairGeometry per pair: [sides, N].
class PairRows {
 public:
  explicit PairRows(const dpo_pair_kernel_args& args)
      : args_(args),
        rows_(args.u.shape[0]),
        depth_(args.u.shape[1]),
        rows_per_chunk_(std::max<std::int64_t>(1, kElementsPerChunk / depth_)) {}

  std::int64_t pairs() const { return rows_ * args_.side_count; }
  std::int64_t depth() const { return depth_; }

  template <class Body>
  dpo_status for_each_row(dpo_job* job, const Body& body) const {
    return parallel_for(job, (rows_ + rows_per_chunk_ - 1) / rows_per_chunk_, [&](std::int64_t chunk) {
      const std::int64_t end = std::min(rows_, (chunk + 1) * rows_per_chunk_);
      for (std::int64_t row = chunk * rows_per_chunk_; row < end; ++row) body(row);
    });
  }

  template <class S>
  const S* row_of(const dpo_tensor& tensor, std::int64_t row) const {
    return data<S>(tensor) + row * depth_;
  }

  template <class S>
  dpo_status measure(dpo_job* job, PairGeometry* geometries) const {
    const dpo_status status = for_each_row(job, [&](std::int64_t row) {
      for (std::int32_t side = 0; side < args_.side_count; ++side) {
        geometries[side * rows_ + row] =
            geometry(row_of<S>(args_.u, row), row_of<S>(args_.v[side], row), depth_, args_.normalize != 0);
      }
    });
    return status == DPO_OK ? check<S>(job, geometries) : status;
  }

 private:
  /// A zero row has no direction; anything else that is not finite came from the rows.
  template <class S>
  dpo_status check(dpo_job* job, const PairGeometry* geometries) const {
    for (std::int64_t pair = 0; pair < pairs(); ++pair) {
      if (std::isfinite(geometries[pair].r2)) continue;
      const std::int64_t row = pair % rows_;
      if (const dpo_status status = explain<S>(job, "u", args_.u, row); status != DPO_OK) return status;
      if (const dpo_status status = explain<S>(job, kSideNames[pair / rows_], args_.v[pair / rows_], row); status != DPO_OK)
        return status;
      return fail(job, DPO_ERR_RANGE, row, "u, v: the distance of row %lld overflows", static_cast<long long>(row));
    }
    return DPO_OK;
  }

  template <class S>
  dpo_status explain(dpo_job* job, const char* name, const dpo_tensor& tensor, std::int64_t row) const {
    const S* values = row_of<S>(tensor, row);
    const auto first = static_cast<long long>(row * depth_);
    for (std::int64_t i = 0; i < depth_; ++i) {
      if (!std::isfinite(element(values, i)))
        return fail(job, DPO_ERR_NONFINITE, first + i, "%s: element %lld is not finite", name, first + i);
    }
    if (args_.normalize != 0 && !std::isfinite(inverse_norm(values, depth_))) {
      return fail(job, DPO_ERR_RANGE, first, "%s: row %lld is zero and cannot be normalised", name, static_cast<long long>(row));
    }
    return DPO_OK;
  }

  const dpo_pair_kernel_args& args_;
  std::int64_t rows_, depth_, rows_per_chunk_;
};

math::RadialLogKernel<double> log_kernel(const dpo_pair_kernel_args& args, double r2) {
  return math::rbf_log_kernel(r2, get(args.parameters, 0));
}

template <class S>
dpo_status forward(dpo_job* job, const dpo_pair_kernel_args& args) {
  const PairRows rows(args);
  auto* geometries = allocate<PairGeometry>(job, rows.pairs());
  if (!geometries) return out_of_memory(job);
  if (const dpo_status status = rows.measure<S>(job, geometries); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;
  for (std::int64_t pair = 0; pair < rows.pairs(); ++pair) set(args.log_k, pair, log_kernel(args, geometries[pair].r2).value);
  return DPO_OK;
}

/// Gradients of one row of u and of its partners. With û = u·u_scale and dr²/dû = 2(û − v̂), normalising projects out the part
/// along û, which is û·(û·(û − v̂)) = û·r²/2.
template <class S>
void pull_back_row(const dpo_pair_kernel_vjp_args& args, const PairRows& rows, const PairGeometry* geometries,
                   const double* r2_grads, std::int64_t row) {
  const std::int64_t count = args.forward.u.shape[0];
  const std::int32_t sides = args.forward.side_count;
  const S* u = rows.row_of<S>(args.forward.u, row);
  const double along = args.forward.normalize != 0 ? 0.5 : 0.0;
  for (std::int64_t i = 0; i < rows.depth(); ++i) {
    double grad_u = 0;
    for (std::int32_t side = 0; side < sides; ++side) {
      const PairGeometry& pair = geometries[side * count + row];
      const double grad = 2 * r2_grads[side * count + row];
      const double u_unit = element(u, i) * pair.u_scale;
      const double v_unit = element(rows.row_of<S>(args.forward.v[side], row), i) * pair.v_scale;
      const double difference = u_unit - v_unit;
      grad_u += grad * pair.u_scale * (difference - along * pair.r2 * u_unit);
      const double grad_v = grad * pair.v_scale * (-difference - along * pair.r2 * v_unit);
      data<S>(args.grad_v[side])[row * rows.depth() + i] = to_storage<S>(static_cast<compute_t<S>>(grad_v));
    }
    data<S>(args.grad_u)[row * rows.depth() + i] = to_storage<S>(static_cast<compute_t<S>>(grad_u));
  }
}

template <class S>
dpo_status pull_back(dpo_job* job, const dpo_pair_kernel_vjp_args& args) {
  const PairRows rows(args.forward);
  auto* geometries = allocate<PairGeometry>(job, rows.pairs());
  auto* r2_grads = allocate<double>(job, rows.pairs());
  if (!geometries || !r2_grads) return out_of_memory(job);
  if (const dpo_status status = rows.measure<S>(job, geometries); status != DPO_OK) return status;
  if (const dpo_status status = host->begin_writes(job); status != DPO_OK) return status;

  double grad_sigma = 0;
  for (std::int64_t pair = 0; pair < rows.pairs(); ++pair) {
    const auto kernel = log_kernel(args.forward, geometries[pair].r2);
    const double upstream = get(args.upstream, pair);
    r2_grads[pair] = upstream * kernel.r2_slope;
    grad_sigma += upstream * kernel.sigma_slope;
  }
  set(args.grad_parameters, 0, grad_sigma);
  return rows.for_each_row(job, [&](std::int64_t row) { pull_back_row<S>(args, rows, geometries, r2_grads, row); });
}

}  // namespace

dpo_status pair_kernel(dpo_job* job, const dpo_pair_kernel_args* args) {
  return dispatch_storage(args->u.dtype, [&]<class S>() { return forward<S>(job, *args); });
}

dpo_status pair_kernel_vjp(dpo_job* job, const dpo_pair_kernel_vjp_args* args) {
  return dispatch_storage(args->forward.u.dtype, [&]<class S>() { return pull_back<S>(job, *args); });
}

}  // namespace dpo::cpu
