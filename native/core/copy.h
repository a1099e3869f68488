/* copy: the elements of one tensor to another, wherever the two are. */
#pragma once

#include "native/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpo_copy_args {
  dpo_tensor from;
  dpo_tensor to; /* shape and dtype of from */
} dpo_copy_args;

#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
namespace dpo {
struct Status;
Status check(const dpo_copy_args& args);           // shapes, dtypes
Status check_contents(const dpo_copy_args& args);  // nothing
}  // namespace dpo
#endif
