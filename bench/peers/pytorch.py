"""Times of the same work in PyTorch: reads one JSON line per request from stdin, answers with one JSON line.

Requests: {"work": one of WORK, "rows", "depth", "vocabulary", "runs"}, with "pairs" for objectives and losses, "kind" (one of DIVERGENCES) for divergences,
"compiled" for a loss that goes through torch.compile, "valueOnly" for one without gradients, and "calls" for how many a run is made of. Answers: {"ms": [...]} or {"error": "..."}. The first line out is {"version", "threads"} or {"error": "..."}.

Its argument is the device: cpu (default) or cuda.
"""

import json
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print(json.dumps({"error": "torch is not installed"}), flush=True)
    sys.exit(0)

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
if DEVICE == "cuda" and not torch.cuda.is_available():
    print(json.dumps({"error": "torch finds no CUDA device"}), flush=True)
    sys.exit(0)


def wait():
    """For what has been launched on the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def compiled(request, loss):
    """`loss`, through torch.compile where the request asks for that. Shapes stay as they are, so none is made dynamic."""
    return torch.compile(loss, dynamic=False) if request.get("compiled") else loss


def step_of(request, loss, leaves, *others):
    """The loss and its gradients in `leaves`, or the loss alone."""

    def value():
        with torch.no_grad():
            loss(*leaves, *others)

    def both():
        loss(*(leaf.detach().requires_grad_(True) for leaf in leaves), *others).backward()

    return value if request.get("valueOnly") else both


def copy(request):
    source = torch.randn(request["rows"], request["vocabulary"])
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def log_probs(logits, targets):
    return torch.log_softmax(logits, -1).gather(1, targets)


def token_log_probs(request):
    logits = torch.randn(request["rows"], request["vocabulary"])
    targets = torch.randint(0, request["vocabulary"], (request["rows"], 1))
    loss = compiled(request, lambda leaf, targets: log_probs(leaf, targets).sum())
    return step_of(request, loss, [logits], targets)


def head(request):
    hidden = torch.randn(request["rows"], request["depth"])
    weight = torch.randn(request["vocabulary"], request["depth"]) * 0.1
    targets = torch.randint(0, request["vocabulary"], (request["rows"], 1))
    return hidden, weight, targets


def linear_token_log_probs(request):
    hidden, weight, targets = head(request)
    loss = compiled(request, lambda h, w, targets: log_probs(h @ w.T, targets).sum())
    return step_of(request, loss, [hidden, weight], targets)


def sigmoid_loss(policy, reference):
    chosen, rejected = (policy - reference).chunk(2)
    return (-F.logsigmoid(0.1 * (chosen - rejected))).mean()


def objective(request):
    hidden, weight, targets = head(request)
    pairs = request["pairs"]
    reference = torch.full((2 * pairs,), -1000.0)

    def dpo(h, w, targets, reference):
        return sigmoid_loss(log_probs(h @ w.T, targets).view(2 * pairs, -1).sum(1), reference)

    return step_of(request, compiled(request, dpo), [hidden, weight], targets, reference)


def preference_loss(request):
    policy, reference = (50 * torch.randn(2 * request["pairs"]) - 200 for _ in range(2))
    return step_of(request, compiled(request, sigmoid_loss), [policy], reference)


def kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum()


def renyi_2(log_p, log_q):
    return torch.logsumexp(2 * log_p - log_q, -1).sum()


def js(log_p, log_q):
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (kl(log_p, log_m) + kl(log_q, log_m))


DIVERGENCES = {"kl": kl, "renyi(2)": renyi_2, "js": js}


def divergence_of_logits(request):
    formula = DIVERGENCES[request["kind"]]
    return lambda policy, reference: formula(torch.log_softmax(policy, -1), torch.log_softmax(reference, -1))


def divergence(request):
    policy = 2 * torch.randn(request["rows"], request["vocabulary"])
    reference = policy + 0.7 * torch.randn_like(policy)
    return step_of(request, compiled(request, divergence_of_logits(request)), [policy], reference)


def linear_divergence(request):
    hidden, weight, _ = head(request)
    reference_weight = weight + 0.7 / math.sqrt(request["depth"]) * torch.randn_like(weight)
    of_logits = divergence_of_logits(request)
    loss = compiled(request, lambda h, w, reference: of_logits(h @ w.T, hidden @ reference.T))
    return step_of(request, loss, [hidden, weight], reference_weight)


def pair_kernel(request):
    u, v, upstream = torch.randn(request["rows"], request["depth"]), torch.randn(request["rows"], request["depth"]), torch.randn(request["rows"])

    def log_rbf(u, v, upstream):
        squared = (F.normalize(u) - F.normalize(v)).square().sum(1)
        return (upstream * squared / (-2 * 1.4**2)).sum()

    return step_of(request, compiled(request, log_rbf), [u, v], upstream)


def rbf(x, y):
    u, v = F.normalize(x), F.normalize(y)
    squared = (u * u).sum(1)[:, None] + (v * v).sum(1) - 2 * (u @ v.T)
    return torch.exp(-squared.clamp(min=0) / (2 * 1.4**2))


def gram(request):
    x, y = torch.randn(request["rows"], request["depth"]), torch.randn(request["vocabulary"], request["depth"])
    upstream = torch.randn(request["rows"], request["vocabulary"])
    kernel = compiled(request, rbf)

    def step():
        kernel(x.detach().requires_grad_(True), y.detach().requires_grad_(True)).backward(upstream)

    return step


WORK = {
    "copy": copy,
    "tokenLogProbs": token_log_probs,
    "linearTokenLogProbs": linear_token_log_probs,
    "objective": objective,
    "preferenceLoss": preference_loss,
    "divergence": divergence,
    "linearDivergence": linear_divergence,
    "pairKernel": pair_kernel,
    "gram": gram,
}


def prepared(request):
    """The request's work after a first run, which may compile it."""
    with torch.device(DEVICE):
        step = WORK[request["work"]](request)
    step()
    wait()
    return step


def main():
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    steps = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps({name: value for name, value in request.items() if name != "runs"})
        if key not in steps:
            try:
                steps[key] = prepared(request)
            except Exception as error:  # a compiler may be missing, and then says so in types of its own
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
                continue
        times = []
        for _ in range(request["runs"]):
            wait()
            begin = time.perf_counter()
            for _ in range(request.get("calls", 1)):
                steps[key]()
            wait()
            times.append(1e3 * (time.perf_counter() - begin))
        print(json.dumps({"ms": times}), flush=True)


main()
