// The kernels of tv, js and their likes.
#include "native/cuda/point_divergence.h"

namespace dpo::cuda {

DPO_MIXTURE_DIVERGENCES()

}  // namespace dpo::cuda
