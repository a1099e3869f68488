#include "native/addon/call.h"

#include <memory>
#include <new>

#include "native/addon/bindings.h"
#include "native/addon/device_memory.h"
#include "native/addon/environment.h"

namespace dpo {
namespace {

/// A call with all it needs to run on any thread.
struct Call {
  Operation operation;
  dpo_job job;
  const dpo_backend* backend = nullptr;
  std::unique_ptr<MemoryClaim> claim;
  std::vector<std::shared_ptr<DeviceMemory>> device_memory;
  std::vector<StagedTensor> staged;

  void run() noexcept {
    try {
      for (const StagedTensor& tensor : staged) {
        if (job.status.ok() && !tensor.written) copy(tensor.on_device, tensor.on_host);
      }
      if (job.status.ok()) job.status = operation.check_contents();
      if (job.status.ok()) operation.run(*backend, &job);
      for (const StagedTensor& tensor : staged) {
        if (job.status.ok() && tensor.written) copy(tensor.on_host, tensor.on_device);
      }
    } catch (const std::bad_alloc&) {
      job.status = {DPO_ERR_MEMORY, -1, "out of memory"};
    }
    job.workspace.clear();
  }

 private:
  void copy(const dpo_tensor& from, const dpo_tensor& to) {
    const dpo_copy_args args{from, to};
    dpo_job copying;
    backend->copy(&copying, &args);
    if (!copying.status.ok()) job.status = copying.status;
  }
};

Status memory_in_use() {
  return {DPO_ERR_MEMORY, -1, "a result's memory overlaps another argument, or a running call uses it; wait for that call"};
}

/// Reads and checks a call; on failure `call.job.status` says why.
std::vector<napi_value> prepare(const Napi::CallbackInfo& info, std::size_t first_buffer, Call& call) {
  const Environment& environment = Environment::of(info.Env());
  const double* frame = info[1].As<Napi::Float64Array>().Data();
  std::vector<napi_value> buffers(info.Length() - first_buffer);
  for (std::size_t i = 0; i < buffers.size(); ++i) buffers[i] = info[first_buffer + i];

  Arguments in(info.Env(), frame, buffers);
  call.operation = kBindings[info[0].As<Napi::Number>().Uint32Value()].read(in);
  call.job.results = in.results();
  call.job.writes_to_caller = in.writes_to_caller();
  call.job.status = in.status().ok() ? call.operation.status : in.status();
  if (!call.job.status.ok()) return {};
  const Backend* backend = in.backend() ? in.backend() : environment.backend();
  if (!backend) {
    call.job.status = {DPO_ERR_BACKEND, -1, environment.why_no_backend()};
    return {};
  }
  call.backend = backend->table;
  call.device_memory = in.take_device_memory();
  call.staged = in.take_staged();
  // Not ToBoolean: it enters JavaScript, which fails in a worker that is being terminated.
  if (!info[2].As<Napi::Boolean>().Value()) {
    call.claim = std::make_unique<MemoryClaim>(in.memory());
    if (!call.claim->claimed()) call.job.status = memory_in_use();
  }
  return {in.held().begin(), in.held().end()};
}

Napi::Value outcome(Napi::Env env, const Status& status) {
  if (status.ok()) return env.Undefined();
  Napi::Object failure = Napi::Object::New(env);
  failure.Set("status", static_cast<double>(status.code));
  failure.Set("index", static_cast<double>(status.index));
  failure.Set("message", status.message);
  return failure;
}

/// A call on its way through libuv's thread pool. Owns itself until `complete`.
struct AsyncCall {
  Call call;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::vector<Napi::Reference<Napi::Value>> held;

  static void execute(napi_env, void* data) { static_cast<AsyncCall*>(data)->call.run(); }

  static void complete(napi_env env, napi_status, void* data) {
    const std::unique_ptr<AsyncCall> self(static_cast<AsyncCall*>(data));
    self->call.claim.reset();
    self->call.device_memory.clear();
    // When the environment is being torn down nothing can be resolved any more; both calls then fail harmlessly.
    napi_resolve_deferred(env, self->deferred, outcome(env, self->call.job.status));
    napi_delete_async_work(env, self->work);
  }
};

/// Nothing in a worker that is being terminated, where no promise can be made any more.
Napi::Value already_settled(Napi::Env env, const Status& status) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return {};
  napi_resolve_deferred(env, deferred, outcome(env, status));
  return {env, promise};
}

}  // namespace

Napi::Value run_operation(const Napi::CallbackInfo& info) {
  Call call;
  prepare(info, 3, call);
  if (call.job.status.ok()) call.run();
  return outcome(info.Env(), call.job.status);
}

Napi::Value start_operation(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto async = std::make_unique<AsyncCall>();
  std::vector<napi_value> held = prepare(info, 4, async->call);
  if (!async->call.job.status.ok()) return already_settled(env, async->call.job.status);

  const auto cancel = info[3].As<Napi::Int32Array>();
  async->call.job.cancel = cancel.Data();
  held.push_back(cancel);
  for (const napi_value value : held) async->held.push_back(Napi::Reference<Napi::Value>::New(Napi::Value(env, value), 1));

  napi_value promise = nullptr;
  const bool queued = napi_create_promise(env, &async->deferred, &promise) == napi_ok &&
                      napi_create_async_work(env, nullptr, Napi::String::New(env, "dpo-kernels"), AsyncCall::execute,
                                             AsyncCall::complete, async.get(), &async->work) == napi_ok &&
                      napi_queue_async_work(env, async->work) == napi_ok;
  if (!queued) return already_settled(env, {DPO_ERR_MEMORY, -1, "the call could not be queued"});
  async.release();  // complete() takes it back
  return Napi::Value(env, promise);
}

Napi::Value claim_memory(const Napi::CallbackInfo& info) {
  const std::size_t inputs = info[0].As<Napi::Number>().Uint32Value();
  std::vector<MemoryRange> ranges;
  for (std::size_t i = 1; i < info.Length(); ++i) {
    const TypedMemory memory = typed_memory(info.Env(), info[i]);
    if (memory.data) ranges.push_back({memory.data, memory.bytes, i > inputs});
    if (const auto device = device_memory(info.Env(), info[i]))
      ranges.push_back({device->data(), device->bytes(), i > inputs});
  }
  auto claim = std::make_unique<MemoryClaim>(ranges);
  if (!claim->claimed()) return outcome(info.Env(), memory_in_use());
  return Napi::Number::New(info.Env(), Environment::of(info.Env()).keep(std::move(claim)));
}

void release_memory(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).release(info[0].As<Napi::Number>().Uint32Value());
}

}  // namespace dpo
