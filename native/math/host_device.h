#pragma once

// Marks a function that is compiled for the host and, under nvcc, for the device as well.
#ifdef __CUDACC__
#define DPO_HD __host__ __device__
#else
#define DPO_HD
#endif

// The same for a function of vectors, which is inlined whatever its length: a call would put all of them in memory.
#ifdef __CUDACC__
#define DPO_HD_INLINE __host__ __device__ __forceinline__
#else
#define DPO_HD_INLINE [[gnu::always_inline]] inline
#endif

// Before a loop over a constant number of elements: unrolls all of it.
#ifdef __CUDACC__
#define DPO_UNROLL _Pragma("unroll")
#else
#define DPO_UNROLL _Pragma("GCC unroll 32")
#endif
