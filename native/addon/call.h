#pragma once

#include <napi.h>

namespace dpo {

/// run(operation, frame, ...memory): runs on this thread. Returns undefined, or {status, index, message} when the call failed.
Napi::Value run_operation(const Napi::CallbackInfo& info);

/// start(operation, frame, cancel, ...memory): runs off the event loop; a promise of the same.
Napi::Value start_operation(const Napi::CallbackInfo& info);

}  // namespace dpo
