#pragma once

#include "native/core/checks.h"
#include "native/core/preference.h"

namespace dpo {

/// Shapes, dtypes and options of a preference call.
void check_preference(Checks& checks, const dpo_preference_args& args);

/// What the arrays hold that every way to compute a preference loss is given.
void check_preference_contents(Checks& checks, const dpo_preference_args& args);

/// True if `holds` is true of some loss of the mix.
bool any_loss(const dpo_preference_options& options, bool (*holds)(std::int32_t kind));

}  // namespace dpo
