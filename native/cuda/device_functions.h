// Elementary functions for formulas of native/math on the device.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "native/math/log_kernels.h"

namespace dpo::cuda {

/// CUDA's sine and cosine keep an array in local memory; those of multiples of π do not.
template <class T>
struct DeviceFunctions : math::ScalarFunctions<T> {
  __device__ __forceinline__ static T cos(T x) { return at(x).cosine; }
  __device__ __forceinline__ static T sin(T x) { return at(x).sine; }

 private:
  struct Angle {
    T sine, cosine;
  };

  __device__ __forceinline__ static Angle of_turns(double x) {
    double sine, cosine;
    sincospi(x, &sine, &cosine);
    return {sine, cosine};
  }
  __device__ __forceinline__ static Angle of_turns(float x) {
    float sine, cosine;
    sincospif(x, &sine, &cosine);
    return {sine, cosine};
  }

  /// Of π·(h + l), h + l = x/π to twice the digits of T.
  __device__ __forceinline__ static Angle at(T x) {
    constexpr double kInverse = 0.3183098861837907, kInverseRest = -1.9678676675182486e-17;
    constexpr T inverse = static_cast<T>(kInverse);
    constexpr T rest = static_cast<T>(kInverse - static_cast<double>(inverse) + kInverseRest);
    constexpr T pi = static_cast<T>(3.141592653589793);
    const T h = x * inverse, l = std::fma(x, inverse, -h) + x * rest;
    const Angle angle = of_turns(h);
    return {angle.sine + pi * l * angle.cosine, angle.cosine - pi * l * angle.sine};
  }
};

}  // namespace dpo::cuda
