#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "native/core/backend_abi.h"
#include "native/core/workspace.h"

namespace dpo {

/// Why a call failed. `code` DPO_OK means it did not.
struct Status {
  dpo_status code = DPO_OK;
  std::int64_t index = -1;
  std::string message;

  bool ok() const { return code == DPO_OK; }
};

/// The services of backend_abi.h, as given to every backend.
const dpo_host& host_services();

}  // namespace dpo

/// State of one running call: the host's side of the opaque dpo_job.
struct dpo_job {
  /// Non-zero there means cancelled; null: cannot be cancelled.
  const std::int32_t* cancel = nullptr;
  /// Results that the caller supplied stay as they were when the call fails.
  bool writes_to_caller = false;
  /// The large results, told to the system before they are written.
  std::vector<dpo_tensor> results;
  dpo::Status status;
  /// Chunks on several threads may take working memory at once.
  std::mutex workspace_mutex;
  std::vector<dpo::WorkspaceBlock> workspace;
};
