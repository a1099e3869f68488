/* A tensor as operations see it: a dense row-major array that somebody else owns. Plain C, part of the backend ABI. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DPO_MAX_RANK 4

typedef enum dpo_dtype { DPO_F32 = 0, DPO_F64 = 1, DPO_F16 = 2, DPO_BF16 = 3, DPO_I32 = 4 } dpo_dtype;

/* Where an array is. On the device it is memory of the backend that runs the call, which alone may follow `data`. */
typedef enum dpo_place { DPO_HOST = 0, DPO_DEVICE = 1 } dpo_place;

/* `data == NULL` means that an optional tensor was not given. */
typedef struct dpo_tensor {
  void* data;
  int64_t shape[DPO_MAX_RANK];
  int32_t rank;
  int32_t dtype;
  int32_t place; /* dpo_place */
} dpo_tensor;

#ifdef __cplusplus
}
#endif
