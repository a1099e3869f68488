// Kernels that map rows or their differences first: what their formulas see of pairs, and the way back from there.
#pragma once

#include "native/cuda/matrix_product.h"
#include "native/cuda/pair_points.h"
#include "native/cuda/spectral_features.h"

namespace dpo::cuda {

/// Factor, frequencies: mapped [pairs, width] from the differences, and from it what kernel m sees.
void map_differences(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                     double* mapped);
/// The gradient in `mapped`, in its place; from that the one in the differences, and factor [depth, width] += that of a factor.
void pull_back_differences(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                           double* mapped, const PairGradients& grads, Accumulate accumulate, double* factor);

/// Landmarks: features of the rows of all operands, and from them what kernel m sees.
void map_to_features(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                     const SpectralScratch& scratch);
/// To the rows, and to the terms of its lambdas.
void pull_back_features(Call& call, const KernelMember& member, std::int32_t m, const PairRows& rows, const PairPoints& points,
                        const SpectralScratch& scratch, const PairGradients& grads, std::int64_t first_term,
                        Accumulate accumulate);

}  // namespace dpo::cuda
