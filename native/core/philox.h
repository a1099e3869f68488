// Counter-based random numbers: the same for the same seed, stream and index on every backend, in any order, on any number of
// threads.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "native/math/host_device.h"
#include "native/math/reproducible.h"

namespace dpo {

/// Philox4x32-10: four random words from a counter and a key. Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2,
/// 3".
DPO_HD constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t second = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(second),
               static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(first)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// The middle of one of 2^52 equal parts of (0, 1). With one bit more the last middle would be rounded to 1.
DPO_HD constexpr double unit_interval(std::uint64_t bits) { return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52; }

/// A sequence of random numbers, each found by its index.
struct Philox {
  std::uint64_t seed;
  std::uint64_t stream;  // sequences of one seed that have nothing to do with each other

  /// 64 random bits.
  DPO_HD constexpr std::uint64_t bits(std::uint64_t index) const {
    const auto words = block(index / 2);
    return index % 2 == 0 ? joined(words[0], words[1]) : joined(words[2], words[3]);
  }

  /// Uniform in (0, 1), 52 bits.
  DPO_HD constexpr double uniform(std::uint64_t index) const { return unit_interval(bits(index)); }

  /// Standard normal, by Box and Muller (1958): a pair of uniforms gives a pair of normals.
  DPO_HD double normal(std::uint64_t index) const {
    const std::uint64_t pair = index / 2 * 2;
    const double radius = std::sqrt(-2 * math::natural_log(uniform(pair)));
    const math::SinCos angle = math::sin_cos(6.283185307179586477 * uniform(pair + 1));
    return radius * (index % 2 == 0 ? angle.cos : angle.sin);
  }

 private:
  DPO_HD constexpr std::array<std::uint32_t, 4> block(std::uint64_t number) const {
    return philox4x32({low(number), high(number), low(stream), high(stream)}, {low(seed), high(seed)});
  }
  DPO_HD static constexpr std::uint64_t joined(std::uint32_t high, std::uint32_t low) { return std::uint64_t{high} << 32 | low; }
  DPO_HD static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  DPO_HD static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
};

}  // namespace dpo
