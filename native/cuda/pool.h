// Objects that no call uses at present, for the next ones: making a stream or a handle takes long.
#pragma once

#include <mutex>
#include <vector>

namespace dpo::cuda {

template <class T>
class Pool {
 public:
  /// False when there is none left.
  bool take(T* object) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return false;
    *object = free_.back();
    free_.pop_back();
    return true;
  }
  void give_back(T object) {
    const std::lock_guard lock(mutex_);
    free_.push_back(object);
  }

  /// Never destroyed: the driver may be gone before static objects are.
  static Pool& shared() {
    static auto* pool = new Pool;
    return *pool;
  }

 private:
  std::mutex mutex_;
  std::vector<T> free_;
};

}  // namespace dpo::cuda
