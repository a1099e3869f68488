#include "native/cpu/gram_rows.h"

#include <cmath>

#include "native/cpu/kernel_rows.h"
#include "native/cpu/spectral_features.h"

namespace dpo::cpu {
namespace {

constexpr std::int64_t kElementsOfChunk = 65536;
constexpr std::int64_t kPackedRows = 96;

std::int64_t blocks_of(std::int64_t extent, std::int64_t block) { return (extent + block - 1) / block; }

}  // namespace

/// Some rows in double, as kernels see them, and working memory.
template <class S>
struct GramRows<S>::Chunk {
  std::int64_t begin, rows;
  double* seen;     // [rows, stride]
  double* centred;  // [rows, stride]: without the mean
  double* squares;  // [rows]
  double* scales;   // [rows]
  double* grads;    // [rows, stride] in the rows as kernels see them
  double* mapped;   // [rows, widest map]
  double* mapped_grads;
  SpectralScratch spectral;
  double* workspace;
};

template <class S>
GramRows<S>::GramRows(dpo_job* job, const GramPlan& plan, const char* name, const dpo_tensor& rows)
    : job_(job),
      plan_(plan),
      name_(name),
      rows_(data<S>(rows)),
      count_(rows.shape[0]),
      depth_(rows.shape[1]),
      stride_(row_stride(depth_)),
      rows_per_chunk_(std::clamp<std::int64_t>(kElementsOfChunk / depth_, 1, 256)),
      normalize_(plan.members.normalizes()),
      scratch_(job, chunk_size()) {}

template <class S>
std::int64_t GramRows<S>::chunks() const {
  return blocks_of(count_, rows_per_chunk_);
}

template <class S>
std::int64_t GramRows<S>::chunk_size() const {
  std::int64_t widest = depth_, landmarks = 0, rank = 0;
  for (std::int32_t m = 0; m < plan_.members.count(); ++m) {
    const KernelMember& member = plan_.members[m];
    if (!member.plain()) widest = std::max(widest, plan_.width(m));
    if (member.map != KernelMap::landmarks) continue;
    landmarks = std::max(landmarks, member.linear.width());
    rank = std::max(rank, member.rank());
  }
  return rows_per_chunk_ * (3 * stride_ + 2 * widest + 4 * landmarks + 2 * rank + 3) + LinearMap::matrix_workspace() + 16 * 64;
}

template <class S>
typename GramRows<S>::Chunk GramRows<S>::load_chunk(std::int64_t index, double* buffer) const {
  const auto take = [&](std::int64_t count) {
    double* at = buffer;
    buffer += blocks_of(count, 8) * 8;
    return at;
  };
  std::int64_t widest = depth_, landmarks = 0, rank = 0;
  for (std::int32_t m = 0; m < plan_.members.count(); ++m) {
    const KernelMember& member = plan_.members[m];
    if (!member.plain()) widest = std::max(widest, plan_.width(m));
    if (member.map != KernelMap::landmarks) continue;
    landmarks = std::max(landmarks, member.linear.width());
    rank = std::max(rank, member.rank());
  }
  Chunk chunk{};
  chunk.begin = index * rows_per_chunk_;
  chunk.rows = std::min(rows_per_chunk_, count_ - chunk.begin);
  const std::int64_t n = rows_per_chunk_;
  chunk.workspace = take(LinearMap::matrix_workspace());
  chunk.seen = take(n * stride_);
  chunk.centred = take(n * stride_);
  chunk.grads = take(n * stride_);
  chunk.squares = take(n);
  chunk.scales = take(n);
  chunk.mapped = take(n * widest);
  chunk.mapped_grads = take(n * widest);
  chunk.spectral.base = take(n * landmarks);
  chunk.spectral.slopes = take(n * landmarks);
  chunk.spectral.self_slopes = take(n * landmarks);
  chunk.spectral.coefficients = take(n * landmarks);
  chunk.spectral.features = take(n * rank);
  chunk.spectral.grads = take(n * rank);
  chunk.spectral.log_scales = take(n);
  for (std::int64_t r = 0; r < chunk.rows; ++r) {
    double* seen = chunk.seen + r * stride_;
    const RowNorm norm = load_row(rows_ + (chunk.begin + r) * depth_, depth_, normalize_, seen);
    chunk.squares[r] = norm.square;
    chunk.scales[r] = norm.scale;
    double* centred = chunk.centred + r * stride_;
    for_each_vector(stride_,
                    [&](std::int64_t i) { store(centred + i, mean_ ? load(seen + i) - load(mean_ + i) : load(seen + i)); });
  }
  return chunk;
}

template <class S>
dpo_status GramRows<S>::measure() {
  scales_ = allocate<double>(job_, count_);
  chunk_sums_ = allocate<double>(job_, chunks() * stride_);
  auto* bad = allocate<std::int64_t>(job_, chunks());
  if (!scales_ || !chunk_sums_ || !bad) return out_of_memory(job_);
  const dpo_status status = parallel_for(job_, chunks(), [&](std::int64_t index) {
    bad[index] = -1;
    scratch_.with_buffer([&](double* buffer) {
      const Chunk chunk = load_chunk(index, buffer);
      double* sums = chunk_sums_ + index * stride_;
      std::fill_n(sums, stride_, 0.0);
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        const double* row = chunk.seen + r * stride_;
        scales_[chunk.begin + r] = chunk.scales[r];
        const double square = inner_product(row, row, stride_);
        if (bad[index] < 0 && !(square <= static_cast<double>(longest))) bad[index] = chunk.begin + r;
        for_each_vector(stride_, [&](std::int64_t i) { store(sums + i, load(sums + i) + load(row + i)); });
      }
    });
  });
  if (status != DPO_OK) return status;
  if (scratch_.exhausted()) return out_of_memory(job_);
  for (std::int64_t index = 0; index < chunks(); ++index) {
    if (bad[index] >= 0) return fail_at(bad[index]);
  }
  return DPO_OK;
}

template <class S>
dpo_status GramRows<S>::fail_at(std::int64_t row) const {
  const S* values = rows_ + row * depth_;
  const auto first = static_cast<long long>(row * depth_);
  bool zero = true;
  for (std::int64_t i = 0; i < depth_; ++i) {
    const T value = to_compute(values[i]);
    if (!std::isfinite(value))
      return fail(job_, DPO_ERR_NONFINITE, first + i, "%s: element %lld is not finite", name_, first + i);
    zero = zero && value == 0;
  }
  if (zero)
    return fail(job_, DPO_ERR_RANGE, first, "%s: row %lld is zero and cannot be normalised", name_, static_cast<long long>(row));
  return fail(job_, DPO_ERR_RANGE, first, "%s: row %lld is so long that distances overflow", name_, static_cast<long long>(row));
}

template <class S>
void GramRows<S>::add_sums(double* sums) const {
  for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
    for (std::int64_t i = 0; i < stride_; ++i) sums[i] += chunk_sums_[chunk * stride_ + i];
  }
}

template <class S>
bool GramRows<S>::allocate_mapped(RowUses uses) {
  const std::int64_t padded = blocks_of(count_, 64) * 64 + 64;
  for (const std::int32_t map : plan_.maps) {
    MappedRows<T> to{};
    to.count = count_;
    to.depth = plan_.width(map);
    to.values = allocate<T>(job_, count_ * to.depth);
    T* const per_row = allocate<T>(job_, 4 * padded);
    if (!to.values || !per_row) return false;
    to.norms = per_row;
    to.offsets = per_row + padded;
    to.log_scales = per_row + 2 * padded;
    to.squares = per_row + 3 * padded;
    std::fill_n(per_row, 3 * padded, T(0));
    std::fill_n(to.squares, padded, T(1));
    if (uses.left) to.lhs = allocate<T>(job_, static_cast<std::int64_t>(PackedLhs<T>::size(count_, to.depth)));
    if (uses.right) to.rhs = allocate<T>(job_, static_cast<std::int64_t>(PackedRhs<T>::size(count_, to.depth)));
    if ((uses.left && !to.lhs) || (uses.right && !to.rhs)) return false;
    if (uses.gradient) {
      to.blocks = allocate<T>(job_, static_cast<std::int64_t>(PackedRhs<T>::size(to.depth, count_)));
      to.grads = allocate<T>(job_, count_ * to.depth);
      to.self = allocate<double>(job_, count_);
      to.mean = allocate<double>(job_, count_);
      if (!to.blocks || !to.grads || !to.self || !to.mean) return false;
      std::fill_n(to.grads, count_ * to.depth, T(0));
      std::fill_n(to.self, count_, 0.0);
      std::fill_n(to.mean, count_, 0.0);
    }
    mapped_.push_back(to);
  }
  return true;
}

template <class S>
dpo_status GramRows<S>::map(const double* mean, RowUses uses) {
  mean_ = mean;
  if (!allocate_mapped(uses)) return out_of_memory(job_);
  const dpo_status status = parallel_for(job_, chunks(), [&](std::int64_t index) {
    scratch_.with_buffer([&](double* buffer) {
      const Chunk chunk = load_chunk(index, buffer);
      for (std::size_t place = 0; place < mapped_.size(); ++place) map_chunk(chunk, place);
    });
  });
  if (status != DPO_OK) return status;
  if (scratch_.exhausted()) return out_of_memory(job_);
  for (const MappedRows<T>& to : mapped_) {
    for (std::int64_t row = 0; row < count_; ++row) {
      if (to.norms[row] <= longest) continue;
      return fail(job_, DPO_ERR_RANGE, row * depth_,
                  "%s: what the kernel's factor makes of row %lld is so long that distances overflow", name_,
                  static_cast<long long>(row));
    }
  }
  return pack(uses);
}

template <class S>
void GramRows<S>::map_chunk(const Chunk& chunk, std::size_t place) const {
  const std::int32_t map = plan_.maps[place];
  const std::int64_t width = mapped_[place].depth;
  double* to = chunk.mapped;
  if (map == kNoMap) {
    for (std::int64_t r = 0; r < chunk.rows; ++r) std::copy_n(chunk.centred + r * stride_, depth_, to + r * width);
    return finish_chunk(chunk, place, to);
  }
  const KernelMember& member = plan_.members[map];
  switch (member.map) {
    case KernelMap::diagonal:
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        for (std::int64_t i = 0; i < depth_; ++i) to[r * width + i] = chunk.centred[r * stride_ + i] * member.diagonal[i];
      }
      break;
    case KernelMap::factor:
      member.linear.apply(chunk.centred, chunk.rows, to, chunk.workspace);
      break;
    case KernelMap::frequencies: {
      const std::int64_t count = member.linear.width();
      const double scale = 1 / std::sqrt(static_cast<double>(count));
      member.linear.apply(chunk.seen, chunk.rows, chunk.mapped_grads, chunk.workspace);
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        for (std::int64_t k = 0; k < count; ++k) {
          const double phase = chunk.mapped_grads[r * count + k];
          to[r * width + k] = scale * std::cos(phase);
          to[r * width + count + k] = scale * std::sin(phase);
        }
      }
      break;
    }
    default: {
      spectral_features(member, {chunk.seen, chunk.squares, chunk.rows, stride_}, chunk.spectral, chunk.workspace);
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        for (std::int64_t k = 0; k < width; ++k)
          to[r * width + k] = chunk.spectral.features[r * width + k] * std::sqrt(member.formula.parameters[k]);
        mapped_[place].log_scales[chunk.begin + r] = static_cast<T>(chunk.spectral.log_scales[r]);
      }
    }
  }
  finish_chunk(chunk, place, to);
}

/// Rounds mapped rows, and takes the numbers per row from what was rounded.
template <class S>
void GramRows<S>::finish_chunk(const Chunk& chunk, std::size_t place, const double* values) const {
  const MappedRows<T>& to = mapped_[place];
  const bool of_rows = plan_.maps[place] == kNoMap;
  for (std::int64_t r = 0; r < chunk.rows; ++r) {
    const std::int64_t row = chunk.begin + r;
    T* rounded = to.values + row * to.depth;
    double norm = 0, along_mean = 0, mean_square = 0;
    for (std::int64_t i = 0; i < to.depth; ++i) {
      rounded[i] = static_cast<T>(values[r * to.depth + i]);
      const double value = static_cast<double>(rounded[i]);
      norm += value * value;
      if (!of_rows || !mean_) continue;
      along_mean += value * mean_[i];
      mean_square += mean_[i] * mean_[i];
    }
    to.norms[row] = static_cast<T>(norm);
    to.offsets[row] = static_cast<T>(along_mean + mean_square / 2);
    to.squares[row] = static_cast<T>(of_rows ? chunk.squares[r] : norm);
  }
}

template <class S>
dpo_status GramRows<S>::pack(RowUses uses) {
  for (const MappedRows<T>& to : mapped_) {
    const MatrixView<T> rows{to.values, to.depth, 1};
    const std::int64_t per_chunk = kPackedRows, blocks = uses.gradient ? blocks_of(count_, kGramBlock) : 0;
    const std::int64_t packs = blocks_of(count_, per_chunk);
    const dpo_status status = parallel_for(job_, packs + blocks, [&](std::int64_t chunk) {
      if (chunk >= packs) {
        const std::int64_t block = chunk - packs;
        to.packed_block(block).pack(rows.at(block * kGramBlock, 0));
        return;
      }
      const Range part{chunk * per_chunk, std::min(count_, (chunk + 1) * per_chunk)};
      if (uses.left) to.packed_lhs().pack(rows, part);
      if (uses.right) to.packed_rhs().pack(rows.transposed(), part);
    });
    if (status != DPO_OK) return status;
  }
  return DPO_OK;
}

template <class S>
dpo_status GramRows<S>::pull_back(const dpo_tensor& grads, double* sums) {
  const std::int64_t size = plan_.places.size;
  auto* partial = allocate<double>(job_, chunks() * size);
  if (!partial) return out_of_memory(job_);
  const dpo_status status = parallel_for(job_, chunks(), [&](std::int64_t index) {
    scratch_.with_buffer([&](double* buffer) {
      std::fill_n(partial + index * size, size, 0.0);
      pull_back_chunk(load_chunk(index, buffer), grads, partial + index * size);
    });
  });
  if (status != DPO_OK) return status;
  if (scratch_.exhausted()) return out_of_memory(job_);
  for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) plan_.add_sums(partial + chunk * size, sums);
  return add_factor_gradients(sums);
}

template <class S>
void GramRows<S>::pull_back_chunk(const Chunk& chunk, const dpo_tensor& grads, double* sums) const {
  std::fill_n(chunk.grads, chunk.rows * stride_, 0.0);
  for (std::size_t place = 0; place < mapped_.size(); ++place) {
    if (plan_.maps[place] == kNoMap) {
      add_base_gradient(chunk);
    } else {
      pull_back_map(chunk, place, sums);
    }
  }
  store_gradient(chunk, grads);
}

template <class S>
void GramRows<S>::add_base_gradient(const Chunk& chunk) const {
  const auto place = static_cast<std::size_t>(std::find(plan_.maps.begin(), plan_.maps.end(), kNoMap) - plan_.maps.begin());
  const MappedRows<T>& from = mapped_[place];
  for (std::int64_t r = 0; r < chunk.rows; ++r) {
    const std::int64_t row = chunk.begin + r;
    double* to = chunk.grads + r * stride_;
    for (std::int64_t i = 0; i < depth_; ++i) {
      const std::int64_t at = row * depth_ + i;
      to[i] += static_cast<double>(from.grads[at]) + from.self[row] * static_cast<double>(from.values[at]);
      if (mean_) to[i] += from.mean[row] * mean_[i];
    }
  }
}

/// Gradients of mapped rows are completed where they are: that of a factor needs all of them.
template <class S>
void GramRows<S>::pull_back_map(const Chunk& chunk, std::size_t place, double* sums) const {
  const MappedRows<T>& from = mapped_[place];
  const std::int32_t m = plan_.maps[place];
  const KernelMember& member = plan_.members[m];
  const std::int64_t width = from.depth;
  double* grads = chunk.mapped_grads;
  for (std::int64_t r = 0; r < chunk.rows; ++r) {
    const std::int64_t row = chunk.begin + r;
    for (std::int64_t k = 0; k < width; ++k) {
      const std::int64_t at = row * width + k;
      grads[r * width + k] = static_cast<double>(from.grads[at]) + from.self[row] * static_cast<double>(from.values[at]);
      from.grads[at] = static_cast<T>(grads[r * width + k]);
    }
  }
  double* parameter_sums = sums + plan_.places.parameters[static_cast<std::size_t>(m)];
  double* factor_sums = sums + plan_.places.diagonals[static_cast<std::size_t>(m)];
  switch (member.map) {
    case KernelMap::diagonal:
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        for (std::int64_t i = 0; i < depth_; ++i) {
          const double grad = grads[r * width + i];
          factor_sums[i] += grad * chunk.centred[r * stride_ + i];
          chunk.grads[r * stride_ + i] += grad * member.diagonal[i];
        }
      }
      break;
    case KernelMap::factor:
      member.linear.pull_back(grads, chunk.rows, false, chunk.grads, chunk.workspace);
      break;
    case KernelMap::frequencies: {
      const std::int64_t count = member.linear.width();
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        const T* features = from.values + (chunk.begin + r) * width;
        for (std::int64_t k = 0; k < count; ++k) {
          chunk.mapped[r * count + k] = grads[r * width + count + k] * static_cast<double>(features[k]) -
                                        grads[r * width + k] * static_cast<double>(features[count + k]);
        }
      }
      member.linear.pull_back(chunk.mapped, chunk.rows, false, chunk.grads, chunk.workspace);
      break;
    }
    default: {
      const SeenRows rows{chunk.seen, chunk.squares, chunk.rows, stride_};
      spectral_features(member, rows, chunk.spectral, chunk.workspace);
      for (std::int64_t r = 0; r < chunk.rows; ++r) {
        for (std::int64_t k = 0; k < width; ++k) {
          const double grad = grads[r * width + k], root = std::sqrt(member.formula.parameters[k]);
          chunk.spectral.grads[r * width + k] = grad * root;
          // Mapped rows hold √λ·φ.
          parameter_sums[k] += grad * chunk.spectral.features[r * width + k] / (2 * root);
        }
      }
      spectral_pull_back(member, rows, normalize_, chunk.spectral, false, chunk.grads, chunk.workspace);
    }
  }
}

/// Through normalisation, which takes the part along the row itself out.
template <class S>
void GramRows<S>::store_gradient(const Chunk& chunk, const dpo_tensor& grads) const {
  for (std::int64_t r = 0; r < chunk.rows; ++r) {
    double* grad = chunk.grads + r * stride_;
    const double* row = chunk.seen + r * stride_;
    const double along = normalize_ ? inner_product(grad, row, stride_) : 0;
    const double scale = chunk.scales[r];
    store_row<Write::cached>(data<S>(grads) + (chunk.begin + r) * depth_, depth_,
                             [&](std::int64_t i) { return (load(grad + i) - along * load(row + i)) * scale; });
  }
}

/// rowsᵀ·gradients of the mapped rows, for each factor of mahalanobis.
template <class S>
dpo_status GramRows<S>::add_factor_gradients(double* sums) {
  const MappedRows<T>* rows = nullptr;
  for (std::size_t place = 0; place < mapped_.size(); ++place) {
    if (plan_.maps[place] == kNoMap) rows = &mapped_[place];
  }
  Scratch<T> scratch(job_, static_cast<std::int64_t>(gemm_workspace<T>));
  for (std::size_t place = 0; place < mapped_.size(); ++place) {
    const std::int32_t m = plan_.maps[place];
    if (m == kNoMap || plan_.members[m].map != KernelMap::factor) continue;
    const MappedRows<T>& mapped = mapped_[place];
    const std::int64_t width = mapped.depth;
    auto* product = allocate<T>(job_, depth_ * width);
    if (!product) return out_of_memory(job_);
    const dpo_status status = parallel_for(job_, blocks_of(depth_, kPackedRows), [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * kPackedRows;
      scratch.with_buffer([&](T* workspace) {
        const MatrixView<T> left{rows->values + begin, 1, depth_}, right{mapped.grads, width, 1};
        gemm(left, right, std::min(kPackedRows, depth_ - begin), width, count_, product + begin * width, width, Update::overwrite,
             std::span<T>(workspace, gemm_workspace<T>));
      });
    });
    if (status != DPO_OK) return status;
    if (scratch.exhausted()) return out_of_memory(job_);
    double* to = sums + plan_.members.places().factors[static_cast<std::size_t>(m)];
    for (std::int64_t i = 0; i < depth_ * width; ++i) to[i] += static_cast<double>(product[i]);
  }
  return DPO_OK;
}

template class GramRows<float>;
template class GramRows<double>;
template class GramRows<f16>;
template class GramRows<bf16>;

}  // namespace dpo::cpu
