/* How a call ended. Each code but DPO_OK is one class of JavaScript error, of the same name. Part of the backend ABI. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dpo_status {
  DPO_OK = 0,
  DPO_ERR_SHAPE = 1,
  DPO_ERR_DTYPE = 2,
  DPO_ERR_RANGE = 3,
  DPO_ERR_NONFINITE = 4,
  DPO_ERR_BACKEND = 5,
  DPO_ERR_DISPOSED = 6,
  DPO_ERR_ABORTED = 7,
  DPO_ERR_MEMORY = 8,
  DPO_ERR_DATA = 9,
  DPO_ERR_NOT_PSD = 10
} dpo_status;

#ifdef __cplusplus
}
#endif
