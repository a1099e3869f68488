#include <napi.h>

#include <iterator>
#include <memory>

#include "native/addon/bindings.h"
#include "native/addon/call.h"
#include "native/addon/device_memory.h"
#include "native/addon/environment.h"
#include "native/core/thread_pool.h"

namespace dpo {
namespace {

Napi::Value describe(Napi::Env env, const Backend& backend) {
  Napi::Object entry = Napi::Object::New(env);
  entry.Set("name", backend.table ? backend.table->name : backend.file.c_str());
  entry.Set("variant", backend.table ? backend.table->variant : "");
  entry.Set("score", static_cast<double>(backend.score));
  entry.Set("reason", backend.reason);
  entry.Set("selected", &backend == Environment::of(env).backend());
  Napi::Array operations = Napi::Array::New(env);
  for (const Binding& binding : kBindings) {
    if (backend.table && binding.supported_by(*backend.table))
      operations.Set(operations.Length(), Napi::String::New(env, binding.name));
  }
  entry.Set("operations", operations);
  return entry;
}

Napi::Value backends(const Napi::CallbackInfo& info) {
  Napi::Array list = Napi::Array::New(info.Env());
  for (const Backend& backend : backends_beside_addon()) list.Set(list.Length(), describe(info.Env(), backend));
  return list;
}

/// useBackend(name): undefined, or why not.
Napi::Value use_backend(const Napi::CallbackInfo& info) {
  const std::string why = Environment::of(info.Env()).use_backend(info[0].As<Napi::String>());
  return why.empty() ? info.Env().Undefined() : Napi::String::New(info.Env(), why);
}

Napi::Value threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), ThreadPool::instance().size()); }

void use_threads(const Napi::CallbackInfo& info) { ThreadPool::instance().resize(info[0].As<Napi::Number>().Int32Value()); }

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(std::make_unique<Environment>().release());  // deleted by Node when the environment ends
  Napi::Array names = Napi::Array::New(env);
  for (const Binding& binding : kBindings) names.Set(names.Length(), Napi::String::New(env, binding.name));
  exports.Set("operations", names);
  exports.Set("run", Napi::Function::New<run_operation>(env));
  exports.Set("start", Napi::Function::New<start_operation>(env));
  exports.Set("claim", Napi::Function::New<claim_memory>(env));
  exports.Set("release", Napi::Function::New<release_memory>(env));
  exports.Set("allocate", Napi::Function::New<allocate_memory>(env));
  exports.Set("free", Napi::Function::New<free_memory>(env));
  exports.Set("exportDlpack", Napi::Function::New<export_dlpack>(env));
  exports.Set("importDlpack", Napi::Function::New<import_dlpack>(env));
  exports.Set("backends", Napi::Function::New<backends>(env));
  exports.Set("useBackend", Napi::Function::New<use_backend>(env));
  exports.Set("threads", Napi::Function::New<threads>(env));
  exports.Set("useThreads", Napi::Function::New<use_threads>(env));
  return exports;
}

}  // namespace
}  // namespace dpo

Napi::Object initialise_dpo_kernels(Napi::Env env, Napi::Object exports) { return dpo::initialise(env, exports); }

NODE_API_MODULE(dpo_kernels, initialise_dpo_kernels)
