// What this machine can do, measured with nothing else around it: the rates that bench/ holds the operations against. Prints
// JSON. Matrix products are the three of a language-model head, each on its own, cut for the threads in the way that suits it
// best.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "native/core/thread_pool.h"
#include "native/core/workspace.h"
#include "native/cpu/gemm.h"

namespace {

using dpo::cpu::gemm;
using dpo::cpu::MatrixView;
using dpo::cpu::PackedLhs;
using dpo::cpu::PackedRhs;
using dpo::cpu::Range;
using dpo::cpu::Update;

constexpr int kRuns = 9;

class Buffer {
 public:
  explicit Buffer(std::size_t count) : block_(dpo::WorkspaceBlock::take(count * sizeof(float))), count_(count) {}
  float* data() const { return static_cast<float*>(block_.data()); }
  std::span<float> span() const { return {data(), count_}; }

  Buffer& randomise() {
    std::minstd_rand random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& x : span()) x = uniform(random);
    return *this;
  }

 private:
  dpo::WorkspaceBlock block_;
  std::size_t count_;
};

void parallel(std::int64_t chunks, const std::function<void(std::int64_t)>& body) {
  const auto call = [](void* closure, std::int64_t chunk) {
    (*static_cast<const std::function<void(std::int64_t)>*>(closure))(chunk);
  };
  dpo::ThreadPool::instance().run(chunks, call, const_cast<void*>(static_cast<const void*>(&body)), nullptr);
}

double median_ms(const std::function<void()>& body) {
  std::vector<double> times;
  body();
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Shape {
  std::int64_t rows, depth, vocabulary;
};

/// Whether a copy writes through the caches, as memcpy of a large block does not but most code does, or around them.
enum class Stores { cached, streamed };

/// Arrays that take turns, so that none is still in a cache when it comes round: an operation between others finds its arrays
/// cold.
constexpr std::size_t kTurns = 4;

/// One read and one write of `count` floats, in memory of the ordinary page size, as that of a trainer's arrays is.
template <Stores stores>
double copy_ms(std::size_t count, std::int64_t chunks) {
  const std::vector<std::vector<float>> froms(kTurns, std::vector<float>(count + 16, 1.0F));
  std::vector<std::vector<float>> tos(kTurns, std::vector<float>(count + 16));
  std::size_t turn = 0;
  const auto aligned = [](auto* data) { return data + (64 - reinterpret_cast<std::uintptr_t>(data) % 64) % 64 / sizeof(float); };
  const auto part = static_cast<std::int64_t>(count) / chunks / 64 * 64;
  return median_ms([&] {
    turn = (turn + 1) % kTurns;
    parallel(chunks, [&](std::int64_t chunk) {
      const float* source = aligned(froms[turn].data()) + chunk * part;
      float* target = aligned(tos[turn].data()) + chunk * part;
      for (std::int64_t i = 0; i < part; i += dpo::cpu::lanes<float>) {
        if constexpr (stores == Stores::streamed) {
          dpo::cpu::stream(target + i, dpo::cpu::load(source + i));
        } else {
          dpo::cpu::store(target + i, dpo::cpu::load(source + i));
        }
      }
      dpo::cpu::stream_fence();
    });
  });
}

/// e^x of `count` floats, a few at a time, so that they stay in the cache nearest to the core.
double exp_ms(std::size_t count, std::int64_t chunks) {
  constexpr std::size_t kBlock = 2048;
  const auto blocks = (count / static_cast<std::size_t>(chunks) + kBlock - 1) / kBlock;
  std::vector<Buffer> memory;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) memory.push_back(std::move(Buffer(2 * kBlock).randomise()));
  const double done = static_cast<double>(blocks * kBlock) * static_cast<double>(chunks);
  const double taken = median_ms([&] {
    parallel(chunks, [&](std::int64_t chunk) {
      const float* source = memory[static_cast<std::size_t>(chunk)].data();
      float* target = memory[static_cast<std::size_t>(chunk)].data() + kBlock;
      for (std::size_t block = 0; block < blocks; ++block) {
        for (std::size_t i = 0; i < kBlock; i += dpo::cpu::lanes<float>) {
          dpo::cpu::store(target + i, dpo::cpu::exp(dpo::cpu::load(source + i)));
        }
        // The next block writes the same numbers: the compiler is not to find that out.
        asm volatile("" : : "r"(target) : "memory");
      }
    });
  });
  return taken * static_cast<double>(count) / done;
}

struct Products {
  double logits_ms, hidden_ms, weight_ms;
};

Products products_ms(const Shape& shape, std::int64_t threads) {
  const std::int64_t block = 768, rows = shape.rows, depth = shape.depth, vocabulary = shape.vocabulary;
  const Buffer hidden = std::move(Buffer(static_cast<std::size_t>(rows * depth)).randomise());
  const Buffer weight = std::move(Buffer(static_cast<std::size_t>(vocabulary * depth)).randomise());
  const Buffer logits = std::move(Buffer(static_cast<std::size_t>(rows * vocabulary)).randomise());
  const Buffer grad_hidden(static_cast<std::size_t>(rows * depth)), grad_weight(static_cast<std::size_t>(vocabulary * depth));
  const Buffer packed_lhs(PackedLhs<float>::size(rows, depth)), packed_rhs(PackedRhs<float>::size(depth, rows));
  std::vector<std::unique_ptr<Buffer>> workspaces;
  const std::int64_t blocks = (vocabulary + block - 1) / block;
  for (std::int64_t chunk = 0; chunk < std::max(blocks, threads); ++chunk) {
    workspaces.push_back(std::make_unique<Buffer>(dpo::cpu::gemm_workspace<float>));
  }
  const MatrixView<float> h{hidden.data(), depth, 1}, w{weight.data(), depth, 1}, g{logits.data(), vocabulary, 1};
  const auto columns = [&](std::int64_t chunk) { return Range{chunk * block, std::min(vocabulary, (chunk + 1) * block)}; };

  Products result{};
  result.logits_ms = median_ms([&] {
    PackedLhs<float> lhs(packed_lhs.span(), rows, depth);
    lhs.pack(h);
    parallel(blocks, [&](std::int64_t chunk) {
      const Range part = columns(chunk);
      gemm(lhs, Range{0, rows}, w.at(part.begin, 0).transposed(), part.size(), logits.data() + part.begin, vocabulary,
           Update::overwrite, workspaces[static_cast<std::size_t>(chunk)]->span());
    });
  });
  const std::int64_t half = (rows + threads - 1) / threads;
  result.hidden_ms = median_ms([&] {
    parallel(threads, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * half, count = std::min(half, rows - begin);
      if (count <= 0) return;
      gemm(g.at(begin, 0), w, count, depth, vocabulary, grad_hidden.data() + begin * depth, depth, Update::overwrite,
           workspaces[static_cast<std::size_t>(chunk)]->span());
    });
  });
  result.weight_ms = median_ms([&] {
    PackedRhs<float> rhs(packed_rhs.span(), depth, rows);
    rhs.pack(h);
    parallel(blocks, [&](std::int64_t chunk) {
      const Range part = columns(chunk);
      gemm(g.at(0, part.begin).transposed(), part.size(), rhs, Range{0, depth}, grad_weight.data() + part.begin * depth, depth,
           Update::overwrite, workspaces[static_cast<std::size_t>(chunk)]->span());
    });
  });
  return result;
}

}  // namespace

/// ceilings ROWS DEPTH VOCABULARY THREADS
int main(int argc, char** argv) {
  const auto argument = [&](int i, std::int64_t fallback) { return argc > i ? std::int64_t{std::atoll(argv[i])} : fallback; };
  const Shape shape{argument(1, 512), argument(2, 512), argument(3, 32000)};
  const std::int64_t threads = argument(4, dpo::ThreadPool::instance().size());
  dpo::ThreadPool::instance().resize(static_cast<int>(threads));
  const auto count = static_cast<std::size_t>(shape.rows * shape.vocabulary);
  const double cached = copy_ms<Stores::cached>(count, 16 * threads), streamed = copy_ms<Stores::streamed>(count, 16 * threads);
  const double exponentials = exp_ms(count, threads);
  const Products products = products_ms(shape, threads);
  std::printf(
      "{\"threads\": %lld, \"copyMs\": %.4f, \"streamedCopyMs\": %.4f, \"expMs\": %.4f, \"logitsProductMs\": %.4f, "
      "\"hiddenProductMs\": %.4f, \"weightProductMs\": %.4f}\n",
      static_cast<long long>(threads), cached, streamed, exponentials, products.logits_ms, products.hidden_ms, products.weight_ms);
  return 0;
}
