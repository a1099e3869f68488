#include "native/core/copy.h"

#include <algorithm>

#include "native/core/checks.h"

namespace dpo {

Status check(const dpo_copy_args& args) {
  const bool same = args.from.rank == args.to.rank && std::equal(args.from.shape, args.from.shape + args.from.rank, args.to.shape);
  Checks checks;
  checks.require(same, DPO_ERR_SHAPE, "to: has another shape").dtype("to", args.to, args.from.dtype);
  return checks.status();
}

Status check_contents(const dpo_copy_args&) { return {}; }

}  // namespace dpo
