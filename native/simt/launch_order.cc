// The order that launches have at first; the build says which.
#include "native/simt/grid.h"

namespace dpo::simt {

Order& launch_order() {
  static Order order = Order::DPO_SIMT_ORDER;
  return order;
}

}  // namespace dpo::simt
