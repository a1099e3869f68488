#pragma once

#include <string>
#include <vector>

#include "native/core/backend_abi.h"

namespace dpo {

/// A backend object found beside the addon.
struct Backend {
  std::string file;
  const dpo_backend* table = nullptr;  // null when it could not be opened
  int score = 0;                       // 0: cannot run here
  std::string reason;                  // one sentence: why this score
};

/// Opens every backend in `directory`, best score first. Process-wide, once: later calls return the first result.
const std::vector<Backend>& open_backends(const std::string& directory);

/// The best runnable backend whose name is `wanted` ("auto": any), or whose "name:variant" is. Null, with `why` telling
/// what was found and what is needed, when there is none.
const Backend* choose_backend(const std::vector<Backend>& backends, const std::string& wanted, std::string& why);

}  // namespace dpo
