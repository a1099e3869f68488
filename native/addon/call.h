#pragma once

#include <napi.h>

namespace dpo {

/// run(operation, frame, claimed, ...memory): runs on this thread. Returns undefined, or {status, index, message} when the call
/// failed. `claimed`: the memory that others can reach is under a claim of claim_memory already.
Napi::Value run_operation(const Napi::CallbackInfo& info);

/// start(operation, frame, claimed, cancel, ...memory): runs off the event loop; a promise of the same.
Napi::Value start_operation(const Napi::CallbackInfo& info);

/// claim(inputs, ...memory): keeps other calls from writing any of the memory, and from using what comes after the first `inputs`
/// arrays, until release(). For computations of several calls. Returns the claim's number, or {status, index, message}.
Napi::Value claim_memory(const Napi::CallbackInfo& info);

/// release(claim).
void release_memory(const Napi::CallbackInfo& info);

}  // namespace dpo
