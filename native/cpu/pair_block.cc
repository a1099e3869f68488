#include "native/cpu/pair_block.h"

#include <cmath>

namespace dpo::cpu {
namespace {

std::size_t index(std::int32_t m) { return static_cast<std::size_t>(m); }

}  // namespace

PairBlock::PairBlock(const KernelMembers& kernels, const PairShape& shape, double* buffer) : kernels_(kernels), shape_(shape) {
  any_difference_grads_ =
      kernels.any_maps_differences() || kernels.any(KernelMap::diagonal) || kernels.any_sees(math::Seen::absolute_distance);
  Carver carver(buffer);
  carve(carver);
  if (zeros_) std::fill_n(zeros_, shape_.stride(), 0.0);
}

std::int64_t PairBlock::size(const KernelMembers& kernels, const PairShape& shape) {
  PairBlock block(kernels, shape, nullptr);
  Carver carver(nullptr);
  block.carve(carver);
  return carver.used();
}

void PairBlock::carve(Carver& from) {
  const std::int64_t pairs = shape_.pairs(), stride = shape_.stride(), row_count = shape_.operands() * shape_.capacity;
  const auto records = [&]<class T>(T*& to, std::int64_t count) {
    to = reinterpret_cast<T*>(from.take(count * static_cast<std::int64_t>(sizeof(T) / sizeof(double))));
  };
  const bool maps_differences = kernels_.any_maps_differences(), maps_rows = kernels_.any(KernelMap::landmarks);
  rows_ = from.take(row_count * stride);
  scales_ = from.take(row_count);
  squares_ = from.take(row_count);
  log_k_ = from.take(pairs);
  responsibilities_ = from.take(pairs * kernels_.count());
  records(seen_, pairs * kernels_.count());
  records(points_, pairs * kernels_.count());
  differences_ = maps_differences ? from.take(pairs * stride) : nullptr;
  workspace_ = from.take(workspace_size());
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    const KernelMember& member = kernels_[m];
    const std::int64_t width = member.linear.width();
    if (member.maps_differences()) mapped_[index(m)] = from.take(pairs * width);
    if (member.map != KernelMap::landmarks) continue;
    const auto of_landmarks = [&] { return from.take(row_count * width); };
    const auto of_rank = [&] { return from.take(row_count * member.rank()); };
    spectral_[index(m)] = {of_landmarks(),       of_landmarks(), of_landmarks(), of_rank(),
                           from.take(row_count), of_rank(),      of_landmarks()};
  }
  if (!shape_.gradients) return;
  upstreams_ = from.take(pairs);
  grad_u_ = from.take(stride);
  grad_v_ = from.take(stride);
  zeros_ = from.take(stride);
  difference_grads_ = maps_differences ? from.take(pairs * stride) : nullptr;
  row_grads_ = maps_rows ? from.take(row_count * stride) : nullptr;
  distance_grads_ = from.take(pairs);
  absolute_grads_ = from.take(pairs);
  records(inner_grads_, pairs);
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    if (kernels_[m].map == KernelMap::diagonal) weighted_grads_[index(m)] = from.take(pairs);
  }
}

std::int64_t PairBlock::workspace_size() const {
  std::int64_t size = 0;
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    const KernelMember& member = kernels_[m];
    size = std::max(size, member.linear.workspace());
    if (shape_.gradients && member.map == KernelMap::factor) size = std::max(size, LinearMap::matrix_workspace());
  }
  return size;
}

SeenRows PairBlock::seen_rows(std::int64_t operand) const {
  return {row(operand, 0), squares_ + operand * shape_.capacity, rows_count_, shape_.stride()};
}

SpectralScratch PairBlock::spectral(std::int32_t m, std::int64_t operand) const {
  const KernelMember& member = kernels_[m];
  const SpectralScratch& all = spectral_[index(m)];
  const std::int64_t first = operand * shape_.capacity, by_landmark = first * member.linear.width(),
                     by_rank = first * member.rank();
  return {all.base + by_landmark, all.slopes + by_landmark, all.self_slopes + by_landmark, all.features + by_rank,
          all.log_scales + first, all.grads + by_rank,      all.coefficients + by_landmark};
}

void PairBlock::evaluate() {
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    if (kernels_[m].maps_differences()) map_differences(m);
    if (kernels_[m].map == KernelMap::landmarks) map_to_features(m);
    for (std::int64_t side = 0; side < shape_.sides; ++side) {
      const std::int64_t first = pair(side, 0);
      evaluate_formula(
          kernels_[m].formula, rows_count_, [&](std::int64_t r) { return seen(m, first + r); },
          [&](std::int64_t r, const LogKernelPoint& at) { point(m, first + r) = at; });
    }
    if (kernels_[m].map != KernelMap::landmarks || kernels_[m].formula.unit_diagonal) continue;
    for_each_pair([&](std::int64_t side, std::int64_t r, std::int64_t p) {
      point(m, p).value += spectral(m, 0).log_scales[r] + spectral(m, 1 + side).log_scales[r];
    });
  }
  mix();
}

/// What the formulas see of the rows themselves.
void PairBlock::measure(std::int64_t side, std::int64_t r) {
  const std::int64_t stride = shape_.stride(), p = pair(side, r);
  const double *u = row(0, r), *v = row(1 + side, r);
  const bool normalized = kernels_.normalizes();
  const bool inner = kernels_.any_sees(math::Seen::inner_product);
  const bool squared = kernels_.any_sees(math::Seen::squared_distance) || (inner && normalized);
  const double r2 = squared ? squared_distance(u, v, stride) : 0;
  const double l1 = kernels_.any_sees(math::Seen::absolute_distance) ? absolute_distance(u, v, stride) : 0;
  // Of normalised rows ⟨u, v⟩ = 1 − ‖u − v‖²/2, which is exactly 1 where u = v.
  Seen products{1 - r2 / 2, 1, 1};
  if (inner && !normalized) products = {inner_product(u, v, stride), squares_[r], squares_[(1 + side) * shape_.capacity + r]};
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    if (kernels_[m].map == KernelMap::diagonal) {
      seen(m, p) = {weighted_squared_distance(u, v, kernels_[m].diagonal, stride), 0, 0};
    } else if (kernels_[m].seen == math::Seen::inner_product) {
      seen(m, p) = products;
    } else {
      seen(m, p) = {kernels_[m].seen == math::Seen::absolute_distance ? l1 : r2, 0, 0};
    }
  }
  if (!differences_) return;
  double* to = difference(side, r);
  for_each_vector(stride, [=](std::int64_t i) { store(to + i, cpu::load(u + i) - cpu::load(v + i)); });
}

void PairBlock::map_differences(std::int32_t m) {
  const KernelMember& member = kernels_[m];
  const std::int64_t width = member.linear.width();
  for (std::int64_t side = 0; side < shape_.sides; ++side) {
    member.linear.apply(difference(side, 0), rows_count_, mapped_[index(m)] + pair(side, 0) * width, workspace_);
  }
  for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) {
    const double* mapped = mapped_[index(m)] + p * width;
    double sum = 0;
    if (member.map == KernelMap::factor) {
      for (std::int64_t k = 0; k < width; ++k) sum += mapped[k] * mapped[k];
      seen(m, p) = {sum, 0, 0};
    } else {
      for (std::int64_t k = 0; k < width; ++k) sum += std::cos(mapped[k]);
      seen(m, p) = {sum / static_cast<double>(width), 1, 1};
    }
  });
}

void PairBlock::map_to_features(std::int32_t m) {
  const KernelMember& member = kernels_[m];
  const double* lambdas = member.formula.parameters;
  for (std::int64_t operand = 0; operand < shape_.operands(); ++operand) {
    spectral_features(member, seen_rows(operand), spectral(m, operand), workspace_, next_[static_cast<std::size_t>(operand)]);
  }
  for_each_pair([&](std::int64_t side, std::int64_t r, std::int64_t p) {
    const double* u = spectral(m, 0).features + r * member.rank();
    const double* v = spectral(m, 1 + side).features + r * member.rank();
    Seen sums{};
    for (std::int64_t k = 0; k < member.rank(); ++k) {
      sums.uv += lambdas[k] * u[k] * v[k];
      sums.uu += lambdas[k] * u[k] * u[k];
      sums.vv += lambdas[k] * v[k] * v[k];
    }
    seen(m, p) = sums;
  });
}

void PairBlock::mix() {
  for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) {
    if (!kernels_.is_mixture()) {
      log_k_[p] = point(0, p).value;
      responsibilities_[p] = 1;
      return;
    }
    math::LogMixture mixture;
    for (std::int32_t m = 0; m < kernels_.count(); ++m) mixture.add(kernels_.log_weight(m), point(m, p).value);
    log_k_[p] = mixture.value();
    for (std::int32_t m = 0; m < kernels_.count(); ++m) {
      responsibilities_[m * shape_.pairs() + p] = math::responsibility(kernels_.log_weight(m), point(m, p).value, log_k_[p]);
    }
  });
}

void PairBlock::pull_back(double* sums) {
  const std::int64_t pairs = shape_.pairs();
  std::fill_n(distance_grads_, pairs, 0.0);
  std::fill_n(absolute_grads_, pairs, 0.0);
  std::fill_n(inner_grads_, pairs, Seen{});
  bool first_features = true, first_differences = true;
  for (std::int32_t m = 0; m < kernels_.count(); ++m) {
    double* log_weights = sums + kernels_.places().log_weights;
    for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) { log_weights[m] += weight(m, p); });
    switch (kernels_[m].map) {
      case KernelMap::none:
        pull_back_plain(m);
        break;
      case KernelMap::diagonal:
        for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) {
          weighted_grads_[index(m)][p] = 2 * weight(m, p) * point(m, p).slopes.uv;
        });
        break;
      case KernelMap::landmarks:
        pull_back_features(m, sums, first_features);
        first_features = false;
        break;
      default:
        pull_back_differences(m, sums, first_differences);
        first_differences = false;
    }
    if (kernels_[m].map == KernelMap::landmarks) continue;  // its lambdas are no part of the formula
    for (std::int64_t side = 0; side < shape_.sides; ++side) {
      const std::int64_t first = pair(side, 0);
      add_parameter_slopes(
          kernels_[m].formula, rows_count_, [&](std::int64_t r) { return seen(m, first + r); },
          [&](std::int64_t r) { return weight(m, first + r); }, sums + kernels_.places().parameters[index(m)]);
    }
  }
}

void PairBlock::pull_back_plain(std::int32_t m) {
  for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) {
    const double w = weight(m, p);
    const Seen& slopes = point(m, p).slopes;
    switch (kernels_[m].seen) {
      case math::Seen::squared_distance:
        distance_grads_[p] += w * slopes.uv;
        break;
      case math::Seen::absolute_distance:
        absolute_grads_[p] += w * slopes.uv;
        break;
      case math::Seen::inner_product:
        if (kernels_.normalizes()) {
          distance_grads_[p] -= w * slopes.uv / 2;
        } else {
          inner_grads_[p].uv += w * slopes.uv;
          inner_grads_[p].uu += w * slopes.uu;
          inner_grads_[p].vv += w * slopes.vv;
        }
        break;
    }
  });
}

void PairBlock::pull_back_differences(std::int32_t m, double* sums, bool first) {
  const KernelMember& member = kernels_[m];
  const std::int64_t width = member.linear.width();
  for_each_pair([&](std::int64_t, std::int64_t, std::int64_t p) {
    double* mapped = mapped_[index(m)] + p * width;
    const double grad = weight(m, p) * point(m, p).slopes.uv;
    if (member.map == KernelMap::factor) {
      for (std::int64_t k = 0; k < width; ++k) mapped[k] *= 2 * grad;
    } else {
      for (std::int64_t k = 0; k < width; ++k) mapped[k] = -grad * std::sin(mapped[k]) / static_cast<double>(width);
    }
  });
  for (std::int64_t side = 0; side < shape_.sides; ++side) {
    const double* grads = mapped_[index(m)] + pair(side, 0) * width;
    const double* x = difference(side, 0);
    double* to = difference_grads_ + pair(side, 0) * shape_.stride();
    member.linear.pull_back(grads, rows_count_, first, to, workspace_);
    if (member.map != KernelMap::factor) continue;
    double* factor = sums + kernels_.places().factors[index(m)];
    member.linear.pull_back_matrix(x, grads, rows_count_, factor, workspace_);
  }
}

void PairBlock::pull_back_features(std::int32_t m, double* sums, bool first) {
  const KernelMember& member = kernels_[m];
  const std::int64_t rank = member.rank();
  const double* lambdas = member.formula.parameters;
  double* lambda_sums = sums + kernels_.places().parameters[index(m)];
  std::fill_n(spectral_[index(m)].grads, shape_.operands() * shape_.capacity * rank, 0.0);
  for_each_pair([&](std::int64_t side, std::int64_t r, std::int64_t p) {
    const SpectralScratch of_u = spectral(m, 0), of_v = spectral(m, 1 + side);
    const double w = weight(m, p);
    const Seen& slopes = point(m, p).slopes;
    for (std::int64_t k = 0; k < rank; ++k) {
      const double u = of_u.features[r * rank + k], v = of_v.features[r * rank + k];
      lambda_sums[k] += w * (slopes.uv * u * v + slopes.uu * u * u + slopes.vv * v * v);
      of_u.grads[r * rank + k] += w * lambdas[k] * (slopes.uv * v + 2 * slopes.uu * u);
      of_v.grads[r * rank + k] += w * lambdas[k] * (slopes.uv * u + 2 * slopes.vv * v);
    }
  });
  for (std::int64_t operand = 0; operand < shape_.operands(); ++operand) {
    spectral_pull_back(member, seen_rows(operand), kernels_.normalizes(), spectral(m, operand), first, row_grad(operand, 0),
                       workspace_);
  }
}

void PairBlock::add_diagonal(std::int32_t m, std::int64_t side, std::int64_t r, double* sums) {
  const std::int64_t p = pair(side, r);
  const double *u = row(0, r), *v = row(1 + side, r), *a = kernels_[m].diagonal;
  const double grad = weighted_grads_[index(m)][p];
  double* to = grad_v_;
  double* factor = sums + kernels_.places().factors[index(m)];
  const auto terms = [=](std::int64_t i) {
    const Vec<double> difference = cpu::load(u + i) - cpu::load(v + i), scaled = grad * (cpu::load(a + i) * difference);
    store(to + i, cpu::load(to + i) + scaled * cpu::load(a + i));
    return scaled * difference;
  };
  const std::int64_t whole = shape_.depth / lanes<double> * lanes<double>;
  for (std::int64_t i = 0; i < whole; i += lanes<double>) store(factor + i, cpu::load(factor + i) + terms(i));
  for (std::int64_t i = whole; i < shape_.stride(); i += lanes<double>) {
    const Vec<double> rest = terms(i);
    for (std::int64_t k = i; k < shape_.depth; ++k) factor[k] += rest[k - i];
  }
}

/// Adds the pair's part to the gradient of its row of u, as the kernels see it, and takes that of v.
PairBlock::Along PairBlock::pull_back_pair(std::int64_t side, std::int64_t r, double* sums) {
  const std::int64_t stride = shape_.stride(), p = pair(side, r);
  const double *u = row(0, r), *v = row(1 + side, r);
  double *to_u = grad_u_, *to_v = grad_v_;
  // The gradient in the difference u − v beside that of plain distances.
  if (any_difference_grads_) {
    if (difference_grads_) {
      std::copy_n(difference_grads_ + p * stride, stride, to_v);
    } else {
      std::fill_n(to_v, stride, 0.0);
    }
    for (std::int32_t m = 0; m < kernels_.count(); ++m) {
      if (kernels_[m].map == KernelMap::diagonal) add_diagonal(m, side, r, sums);
    }
    if (const double of_absolute = absolute_grads_[p]; of_absolute != 0) {
      for_each_vector(stride, [=](std::int64_t i) {
        store(to_v + i, cpu::load(to_v + i) + of_absolute * sign(cpu::load(u + i) - cpu::load(v + i)));
      });
    }
  }
  const double* more = any_difference_grads_ ? to_v : zeros_;
  const double* before_u = side > 0 ? to_u : row_grads_ ? row_grad(0, r) : zeros_;
  const double* before_v = row_grads_ ? row_grad(1 + side, r) : zeros_;
  const double of_distance = 2 * distance_grads_[p];
  const Seen inner = inner_grads_[p];
  Vec<double> along_u{}, along_v{};
  for_each_vector(stride, [&](std::int64_t i) {
    const Vec<double> x = cpu::load(u + i), y = cpu::load(v + i);
    const Vec<double> grad = of_distance * (x - y) + cpu::load(more + i);
    const Vec<double> of_u = grad + (inner.uv * y + 2 * inner.uu * x) + cpu::load(before_u + i);
    const Vec<double> of_v = (inner.uv * x + 2 * inner.vv * y) - grad + cpu::load(before_v + i);
    store(to_u + i, of_u);
    store(to_v + i, of_v);
    along_u += x * of_u;
    along_v += y * of_v;
  });
  return {horizontal_sum(along_u), horizontal_sum(along_v)};
}

}  // namespace dpo::cpu
