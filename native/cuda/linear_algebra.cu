#include "native/core/linear_algebra.h"

#include <limits>

#include "native/cuda/alarm.h"
#include "native/cuda/dense_solvers.h"
#include "native/cuda/magnitude.h"
#include "native/cuda/matrix_product.h"
#include "native/cuda/operations.h"
#include "native/cuda/grid.h"
#include "native/cuda/scalars.h"
#include "native/math/linear_algebra.h"

namespace dpo::cuda {
namespace {

__device__ __forceinline__ bool in_triangle(bool lower, std::int64_t i, std::int64_t j) { return lower ? j <= i : j >= i; }

template <class S>
__global__ void widen(const S* from, std::int64_t count, double* to) {
  for_each_index(count, [&](std::int64_t i) { to[i] = static_cast<double>(from[i]); });
}

/// What a tensor of S holds, in memory that may be written to.
template <class S>
double* widened(Call& call, const dpo_tensor& tensor) {
  const std::int64_t count = static_cast<std::int64_t>(bytes_of(tensor) / sizeof(S));
  auto* to = call.allocate<double>(count);
  call.launch(widen<S>, passes(count), call.input<S>(tensor), count, to);
  return to;
}

/// The same to read.
template <class S>
const double* input(Call& call, const dpo_tensor& tensor) {
  if constexpr (std::is_same_v<S, double>) {
    return call.input<double>(tensor);
  } else {
    return widened<S>(call, tensor);
  }
}

template <class S>
__global__ void narrow(const double* from, std::int64_t count, S* to, Alarm* overflow) {
  bool fit = true;
  for_each_index(count, [&](std::int64_t i) {
    fit = fit && fits<S>(from[i]);
    to[i] = static_cast<S>(from[i]);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// to = (scale·from + scale·fromᵀ)/2.
template <class S>
__global__ void narrow_symmetric(const double* from, std::int64_t n, double scale, S* to, Alarm* overflow) {
  bool fit = true;
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    const double value = (scale * from[index] + scale * from[j * n + i]) / 2;
    fit = fit && fits<S>(value);
    to[index] = static_cast<S>(value);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// to = −from in a triangle, and 0 outside.
template <class S>
__global__ void narrow_negative_triangle(const double* from, std::int64_t n, bool lower, S* to, Alarm* overflow) {
  bool fit = true;
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    const double value = in_triangle(lower, i, j) ? -from[index] : 0;
    fit = fit && fits<S>(value);
    to[index] = static_cast<S>(value);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// The lower triangle with `added` on its diagonal, and 0 above it.
template <class S>
__global__ void take_lower(const S* from, std::int64_t n, double added, double* to) {
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    to[index] = j <= i ? static_cast<double>(from[index]) + (i == j ? added : 0) : 0;
  });
}

template <class S>
double* lower_of(Call& call, const dpo_tensor& matrix) {
  const std::int64_t n = matrix.shape[0];
  auto* lower = call.allocate<double>(n * n);
  call.launch(take_lower<S>, passes(n * n), call.input<S>(matrix), n, 0.0, lower);
  return lower;
}

/// One block.
template <class S>
__global__ void average_diagonal(const S* a, std::int64_t n, double* mean) {
  Sum sum;
  for_each_index(n, [&](std::int64_t i) { sum.value += std::fabs(static_cast<double>(a[i * n + i])); });
  sum = merge_block(sum);
  if (threadIdx.x == 0) *mean = sum.value / static_cast<double>(n);
}

template <class S>
double mean_diagonal(Call& call, const S* a, std::int64_t n) {
  auto* mean = call.allocate<double>(1);
  const unsigned threads = block_threads(n);
  call.launch(average_diagonal<S>, {{1, 1, 1}, threads, merge_block_bytes<Sum>(threads)}, a, n, mean);
  return call.read(mean);
}

/// Raises the alarm where the lower triangle is not a factor.
template <class S>
__global__ void write_factor(const double* lower, std::int64_t n, S* to, Alarm* unusable) {
  bool usable = true;
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    const double value = j <= i ? lower[index] : 0;
    usable = usable && fits<double>(value) && (i != j || value > 0);
    to[index] = static_cast<S>(value);
  });
  if (!usable) atomicMax(unusable, 1);
}

/// Whether a + added·I has a factor, which it writes.
template <class S>
bool write_factor_of(Call& call, const S* a, std::int64_t n, double added, double* work, S* factor) {
  call.launch(take_lower<S>, passes(n * n), a, n, added, work);
  if (!factorize(call, n, work)) return false;
  Alarm* unusable = new_alarm(call);
  call.launch(write_factor<S>, passes(n * n), work, n, factor, unusable);
  return call.read(unusable) == 0 && call.ok();
}

template <class S>
dpo_status cholesky(Call& call, const dpo_cholesky_args& args) {
  const std::int64_t n = args.a.shape[0];
  const S* a = call.input<S>(args.a);
  S* factor = call.output<S>(args.factor);
  double* used = call.output<double>(args.used_jitter);
  auto* work = call.allocate<double>(n * n);
  const double mean = args.jitter > 0 ? mean_diagonal(call, a, n) : 0;
  for (int attempt = 0; call.ok() && attempt < math::jitter_attempts(args.jitter); ++attempt) {
    const double added = math::added_jitter(args.jitter, attempt, mean);
    if (!write_factor_of(call, a, n, added, work, factor)) continue;
    call.launch(write_number<double>, {{1, 1, 1}, 1}, used, added);
    return call.finish();
  }
  return call.fail(DPO_ERR_NOT_PSD, "a: is not positive definite, not with %g of its mean diagonal added to the diagonal either",
                   math::jitter_share(args.jitter, math::kJitterAttempts));
}

/// P + Pᵀ, P the lower triangle of `product` with half its diagonal.
__global__ void mirror_lower(const double* product, std::int64_t n, double* to) {
  for_each_element(n, n,
                   [&](std::int64_t i, std::int64_t j, std::int64_t index) { to[index] = product[j <= i ? index : j * n + i]; });
}

/// ½·L⁻ᵀ(P + Pᵀ)L⁻¹, P the lower triangle of LᵀL̄ with half its diagonal. Murray (2016), arXiv 1602.07527.
template <class S>
dpo_status cholesky_vjp(Call& call, const dpo_cholesky_vjp_args& args) {
  const std::int64_t n = args.factor.shape[0];
  const double *lower = lower_of<S>(call, args.factor), *upstream = lower_of<S>(call, args.upstream);
  auto *product = call.allocate<double>(n * n), *both = call.allocate<double>(n * n);
  S* gradient = call.output<S>(args.grad_a);
  multiply<double>(call, {n, n, n}, {lower, n, true}, {upstream, n}, product, n, Accumulate::no);
  call.launch(mirror_lower, passes(n * n), product, n, both);
  solve_left(call, {lower, n, true, true}, both, n);
  solve_right(call, {lower, n, true, false}, both, n);
  Alarm* overflow = new_alarm(call);
  call.launch(narrow_symmetric<S>, passes(n * n), both, n, 0.5, gradient, overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "factor, upstream: the gradient overflows");
  return call.finish();
}

template <class S>
dpo_status solve_triangular(Call& call, const dpo_solve_triangular_args& args) {
  const std::int64_t n = args.a.shape[0], columns = args.b.shape[1];
  const double* a = input<S>(call, args.a);
  double* x = widened<S>(call, args.b);
  S* solution = call.output<S>(args.x);
  solve_left(call, {a, n, args.lower != 0, args.transpose != 0}, x, columns);
  Alarm* overflow = new_alarm(call);
  call.launch(narrow<S>, passes(n * columns), x, n * columns, solution, overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "a, b: the solution overflows");
  return call.finish();
}

/// b̄ = a⁻ᵀx̄ and ā = −b̄xᵀ, of the transposed system a⁻¹x̄ and −xb̄ᵀ; of ā the triangle that is read.
template <class S>
dpo_status solve_triangular_vjp(Call& call, const dpo_solve_triangular_vjp_args& args) {
  const std::int64_t n = args.a.shape[0], columns = args.x.shape[1];
  const bool lower = args.lower != 0, transpose = args.transpose != 0;
  const double *a = input<S>(call, args.a), *x = input<S>(call, args.x);
  double *of_b = widened<S>(call, args.upstream), *of_a = call.allocate<double>(n * n);
  S *grad_a = call.output<S>(args.grad_a), *grad_b = call.output<S>(args.grad_b);
  solve_left(call, {a, n, lower, !transpose}, of_b, columns);
  const double *left = transpose ? x : of_b, *right = transpose ? of_b : x;
  multiply<double>(call, {n, n, columns}, {left, columns}, {right, columns, true}, of_a, n, Accumulate::no);
  Alarm* overflow = new_alarm(call);
  call.launch(narrow_negative_triangle<S>, passes(n * n), of_a, n, lower, grad_a, overflow);
  call.launch(narrow<S>, passes(n * columns), of_b, n * columns, grad_b, overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "a, x, upstream: the gradient overflows");
  return call.finish();
}

template <class S>
__global__ void write_eigenvalues(const double* values, std::int64_t n, const Magnitude* magnitude, S* to, Alarm* overflow) {
  const int exponent = exponent_of(*magnitude);
  bool fit = true;
  for_each_index(n, [&](std::int64_t i) {
    const double value = std::ldexp(values[i], exponent);
    fit = fit && fits<S>(value);
    to[i] = static_cast<S>(value);
  });
  if (!fit) atomicMax(overflow, 1);
}

/// The first component of largest magnitude.
struct Peak {
  double magnitude = -1;
  std::int64_t index = 0;

  __device__ void merge(const Peak& other) {
    if (other.magnitude > magnitude || (other.magnitude == magnitude && other.index < index)) *this = other;
  }
};

/// What makes that component positive: 1 or −1 for each row of `vectors`. A block a row.
__global__ void find_signs(const double* vectors, std::int64_t n, double* signs) {
  const double* vector = vectors + blockIdx.x * n;
  Peak peak;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) peak.merge({std::fabs(vector[i]), i});
  peak = merge_block(peak);
  if (threadIdx.x == 0) signs[blockIdx.x] = vector[peak.index] < 0 ? -1 : 1;
}

/// Vectors in rows as columns of the result.
template <class S>
__global__ void write_vectors(const double* vectors, const double* signs, std::int64_t n, S* to) {
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    to[index] = static_cast<S>(signs[j] * vectors[j * n + i]);
  });
}

template <class S>
dpo_status eigh(Call& call, const dpo_eigh_args& args) {
  const std::int64_t n = args.a.shape[0];
  const S* a = call.input<S>(args.a);
  auto *vectors = call.allocate<double>(n * n), *values = call.allocate<double>(n), *signs = call.allocate<double>(n);
  const Magnitude* magnitude = measure(call, a, n, n, Part::lower);
  call.launch(scale_lower<S>, passes(n * n), a, n, magnitude, vectors);
  if (!decompose(call, n, vectors, values)) return call.fail(DPO_ERR_RANGE, "a: its eigenvalues could not be found");
  Alarm* overflow = new_alarm(call);
  call.launch(write_eigenvalues<S>, passes(n), values, n, magnitude, call.output<S>(args.values), overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "a: its eigenvalues overflow");
  const unsigned threads = block_threads(n);
  call.launch(find_signs, {{static_cast<unsigned>(n), 1, 1}, threads, merge_block_bytes<Peak>(threads)}, vectors, n, signs);
  call.launch(write_vectors<S>, passes(n * n), vectors, signs, n, call.output<S>(args.vectors));
  return call.finish();
}

/// math::turn_term of all elements of VᵀV̄ = `turned`. `undefined`: 1 + the last eigenvalue that has no gradient.
__global__ void find_turn_terms(const double* turned, const double* values, std::int64_t n, double relative,
                                const Magnitude* of_values, const Magnitude* of_upstream, double* terms, Alarm* undefined) {
  const auto bounds = math::TurnBounds::of(relative, n, of_values->largest, std::sqrt(of_upstream->squares));
  for_each_element(n, n, [&](std::int64_t i, std::int64_t j, std::int64_t index) {
    const math::TurnTerm term = math::turn_term(turned[index], turned[j * n + i], values[i], values[j], bounds);
    terms[index] = term.value;
    if (term.undefined) atomicMax(undefined, static_cast<Alarm>(i) + 1);
  });
}

template <class S>
__global__ void add_diagonal(const S* diagonal, std::int64_t n, double* to) {
  for_each_index(n, [&](std::int64_t i) { to[i * n + i] += static_cast<double>(diagonal[i]); });
}

/// The terms of an upstream of the vectors. False when the call has failed, of an upstream without a gradient among others.
template <class S>
bool take_turn_terms(Call& call, const dpo_eigh_vjp_args& args, const double* vectors, double* terms) {
  const std::int64_t n = args.vectors.shape[0];
  const double *values = input<S>(call, args.values), *upstream = input<S>(call, args.upstream_vectors);
  auto* turned = call.allocate<double>(n * n);
  Alarm* undefined = new_alarm(call);
  multiply<double>(call, {n, n, n}, {vectors, n, true}, {upstream, n}, turned, n, Accumulate::no);
  const auto relative = static_cast<double>(std::numeric_limits<S>::epsilon());
  call.launch(find_turn_terms, passes(n * n), turned, values, n, relative, measure(call, values, n, 1, Part::all),
              measure(call, upstream, n, n, Part::all), terms, undefined);
  if (const Alarm found = call.read(undefined); found != 0) {
    const auto i = static_cast<std::int64_t>(found - 1);
    call.fail_at(i, DPO_ERR_RANGE, "upstream.vectors: eigenvalue %lld is repeated, and its vectors have no gradient",
                 static_cast<long long>(i));
  }
  return call.ok();
}

template <class S>
dpo_status eigh_vjp(Call& call, const dpo_eigh_vjp_args& args) {
  const std::int64_t n = args.vectors.shape[0];
  const double* vectors = input<S>(call, args.vectors);
  auto *terms = call.allocate<double>(n * n), *left = call.allocate<double>(n * n), *whole = call.allocate<double>(n * n);
  if (!args.upstream_vectors.data) {
    call.fill(terms, 0, static_cast<std::size_t>(n * n) * sizeof *terms);
  } else if (!take_turn_terms<S>(call, args, vectors, terms)) {
    return call.status();
  }
  if (args.upstream_values.data) call.launch(add_diagonal<S>, passes(n), call.input<S>(args.upstream_values), n, terms);
  multiply<double>(call, {n, n, n}, {vectors, n}, {terms, n}, left, n, Accumulate::no);
  multiply<double>(call, {n, n, n}, {left, n}, {vectors, n, true}, whole, n, Accumulate::no);
  Alarm* overflow = new_alarm(call);
  call.launch(narrow_symmetric<S>, passes(n * n), whole, n, 1.0, call.output<S>(args.grad_a), overflow);
  if (call.read(overflow) != 0) return call.fail(DPO_ERR_RANGE, "vectors, upstream: the gradient overflows");
  return call.finish();
}

/// Runs body(call, S) in the storage type of a matrix, f32 or f64.
template <class Body>
dpo_status run_in(dpo_job* job, const dpo_tensor& matrix, const Body& body) {
  return run(job, [&](Call& call) {
    return matrix.dtype == DPO_F64 ? body.template operator()<double>(call) : body.template operator()<float>(call);
  });
}

}  // namespace

dpo_status cholesky(dpo_job* job, const dpo_cholesky_args* args) {
  return run_in(job, args->a, [&]<class S>(Call& call) { return cholesky<S>(call, *args); });
}

dpo_status cholesky_vjp(dpo_job* job, const dpo_cholesky_vjp_args* args) {
  return run_in(job, args->factor, [&]<class S>(Call& call) { return cholesky_vjp<S>(call, *args); });
}

dpo_status solve_triangular(dpo_job* job, const dpo_solve_triangular_args* args) {
  return run_in(job, args->a, [&]<class S>(Call& call) { return solve_triangular<S>(call, *args); });
}

dpo_status solve_triangular_vjp(dpo_job* job, const dpo_solve_triangular_vjp_args* args) {
  return run_in(job, args->a, [&]<class S>(Call& call) { return solve_triangular_vjp<S>(call, *args); });
}

dpo_status eigh(dpo_job* job, const dpo_eigh_args* args) {
  return run_in(job, args->a, [&]<class S>(Call& call) { return eigh<S>(call, *args); });
}

dpo_status eigh_vjp(dpo_job* job, const dpo_eigh_vjp_args* args) {
  return run_in(job, args->vectors, [&]<class S>(Call& call) { return eigh_vjp<S>(call, *args); });
}

}  // namespace dpo::cuda
