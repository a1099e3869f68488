// The kernels of kl, forward_kl and jeffreys.
#include "native/cuda/point_divergence.h"

namespace dpo::cuda {

DPO_KL_DIVERGENCES()

}  // namespace dpo::cuda
