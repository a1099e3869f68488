#include "native/core/job.h"

#include "native/core/dtype.h"
#include "native/core/thread_pool.h"

namespace dpo {
namespace {

dpo_status fail(dpo_job* job, dpo_status status, std::int64_t index, const char* message) {
  job->status = {status, index, message};
  return status;
}

dpo_status aborted(dpo_job* job) { return fail(job, DPO_ERR_ABORTED, -1, "the call was aborted"); }

dpo_status parallel_for(dpo_job* job, std::int64_t chunks, dpo_chunk_body body, void* closure) {
  return ThreadPool::instance().run(chunks, body, closure, job->cancel) ? DPO_OK : aborted(job);
}

dpo_status check_cancelled(dpo_job* job) {
  return job->cancel && __atomic_load_n(job->cancel, __ATOMIC_RELAXED) != 0 ? aborted(job) : DPO_OK;
}

void* allocate(dpo_job* job, std::size_t bytes) {
  const std::lock_guard lock(job->workspace_mutex);
  job->workspace.push_back(WorkspaceBlock::take(bytes));
  return job->workspace.back().data();
}

dpo_status begin_writes(dpo_job* job) {
  if (const dpo_status status = check_cancelled(job); status != DPO_OK) return status;
  if (job->writes_to_caller) {
    job->cancel = nullptr;
    return DPO_OK;
  }
  for (const dpo_tensor& result : job->results) {
    if (result.place == DPO_HOST) expect_dense_writes(result.data, byte_size(result));
  }
  return DPO_OK;
}

std::int32_t discards_results(const dpo_job* job) { return job->writes_to_caller ? 0 : 1; }

}  // namespace

const dpo_host& host_services() {
  static const dpo_host host{DPO_ABI_VERSION, parallel_for, check_cancelled, allocate, begin_writes, discards_results, fail};
  return host;
}

}  // namespace dpo
