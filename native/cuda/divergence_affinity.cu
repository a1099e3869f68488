// The kernels of functions of the affinity.
#include "native/cuda/point_divergence.h"

namespace dpo::cuda {

DPO_AFFINITY_DIVERGENCES()

}  // namespace dpo::cuda
