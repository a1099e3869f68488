#pragma once

// Marks a function that is compiled for the host and, under nvcc, for the device as well.
#ifdef __CUDACC__
#define DPO_HD __host__ __device__
#else
#define DPO_HD
#endif
