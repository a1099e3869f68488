#include "native/addon/bindings.h"

namespace dpo {

Operation read_landmarks(Arguments& in) {
  dpo_landmarks_args args{};
  args.x = in.tensor();
  args.scores = in.tensor();
  args.method = in.integer();
  args.seed = in.long_integer();
  args.indices = in.tensor();
  return operation(args, &dpo_backend::landmarks);
}

}  // namespace dpo
