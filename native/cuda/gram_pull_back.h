// The pull-back of a Gram matrix: weights upstream·∂K/∂(what formulas see), a block of the matrix at a time and in each block a
// layer at a time, and their products with the mapped rows of the other side.
#pragma once

#include <functional>

#include "native/cuda/gram_values.h"

namespace dpo::cuda {

template <class T>
class GramPullBack {
 public:
  /// Makes a block of the upstream, of the same rows that of U + Uᵀ.
  using Fill = std::function<void(const BlockPlace& at, const BlockMemory<T>& to)>;

  /// gram: K where distances are to be taken from it, or null. `sums` gets those of parameters, as in members.places().
  GramPullBack(Call& call, const GramPairs<T>& pairs, const T* gram, double* sums);

  /// Adds the gradients of Σ upstream·K to those of the mapped rows and to the sums.
  void add(const Fill& fill) const;

 private:
  void add_layer(std::size_t layer, const BlockPlace& at) const;
  void add_member(std::int32_t m, PairProduct product, const PairBlock<T>& block, bool first) const;
  bool has_columns(const BlockPlace& at) const;
  template <class Slopes>
  void add_column_sums(const Slopes& slopes) const;
  template <class Slopes>
  void add_parameter_sums(std::int32_t m, const Slopes& slopes) const;
  void add_sums(const double* partial, std::int64_t count, const BlockPlace& at, double* to) const;
  void multiply_weights(PairProduct product, const PairBlock<T>& block) const;

  Call& call_;
  GramPairs<T> pairs_;
  const T* gram_;
  double* sums_;
  T *products_, *upstream_, *weights_;
  double *row_sums_, *column_sums_;
};

extern template class GramPullBack<float>;
extern template class GramPullBack<double>;

}  // namespace dpo::cuda
