#include "native/addon/bindings.h"

namespace dpo {

Operation read_copy(Arguments& in) {
  dpo_copy_args args{};
  args.from = in.resident_tensor();
  args.to = in.resident_tensor();
  return operation(args, &dpo_backend::copy);
}

}  // namespace dpo
