// The hierarchical mixture of kernels: a tree of groups, each a softmax of logits over its members.
//   ln K = logsumexp over kernels m of (ln w_m + ln k_m), w_m the product of the shares on the way from the root to m.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/math/host_device.h"
#include "native/math/log_sum_exp.h"

namespace dpo::math {

/// Nodes are the groups, parents first, the root at 0; then the kernels.
struct MixtureTree {
  std::int64_t groups, members;
  const std::int32_t* parents;  // [nodes]: the group that a node is in; the root's is -1
  const double* logits;         // [nodes]; the root's counts for nothing

  DPO_HD std::int64_t nodes() const { return groups + members; }
};

/// ln of each node's share of its group: log_shares [nodes], 0 for the root.
DPO_HD inline void mixture_log_shares(const MixtureTree& tree, double* log_shares) {
  log_shares[0] = 0;
  for (std::int64_t group = 0; group < tree.groups; ++group) {
    LogSumExp<double> sums{};
    for (std::int64_t node = 1; node < tree.nodes(); ++node) {
      if (tree.parents[node] == group) sums.add(tree.logits[node]);
    }
    const double total = sums.value();
    for (std::int64_t node = 1; node < tree.nodes(); ++node) {
      if (tree.parents[node] == group) log_shares[node] = tree.logits[node] - total;
    }
  }
}

/// ln w of each node in the whole mixture, from the shares: log_weights [nodes].
DPO_HD inline void mixture_log_weights(const MixtureTree& tree, const double* log_shares, double* log_weights) {
  log_weights[0] = 0;
  for (std::int64_t node = 1; node < tree.nodes(); ++node) log_weights[node] = log_shares[node] + log_weights[tree.parents[node]];
}

/// H = −Σ w ln w of the shares of each group: entropies [groups], nats.
DPO_HD inline void mixture_entropies(const MixtureTree& tree, const double* log_shares, double* entropies) {
  for (std::int64_t group = 0; group < tree.groups; ++group) entropies[group] = 0;
  for (std::int64_t node = 1; node < tree.nodes(); ++node) {
    const double share = std::exp(log_shares[node]);
    if (share > 0) entropies[tree.parents[node]] -= share * log_shares[node];
  }
}

/// The gradient in the logits. `grads` [nodes] holds, for each kernel, the gradient in its ln w; the rest is overwritten.
/// `entropy_upstream` is the gradient in the entropy of every group.
DPO_HD inline void mixture_pull_back(const MixtureTree& tree, const double* log_shares, const double* entropies,
                                     double entropy_upstream, double* grads) {
  for (std::int64_t group = 0; group < tree.groups; ++group) grads[group] = 0;
  for (std::int64_t node = tree.nodes() - 1; node > 0; --node) grads[tree.parents[node]] += grads[node];
  // ∂ ln w/∂ logit of a softmax, and ∂H/∂ logit_n = −w_n·(ln w_n + H). Children first: a group's own sum is needed by its
  // members.
  for (std::int64_t node = tree.nodes() - 1; node > 0; --node) {
    const std::int32_t group = tree.parents[node];
    const double share = std::exp(log_shares[node]);
    grads[node] -= share * grads[group];
    if (share > 0) grads[node] -= entropy_upstream * share * (log_shares[node] + entropies[group]);
  }
  grads[0] = 0;
}

}  // namespace dpo::math
