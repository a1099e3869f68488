"""Times of the same work in PyTorch: reads one JSON line per request from stdin, answers with one JSON line.

Requests: {"work": "copy" | "tokenLogProbs" | "linearTokenLogProbs" | "objective", "rows", "depth", "vocabulary", "pairs", "runs"}.
Answers: {"ms": [...]} or {"error": "..."}. The first line out is {"version", "threads"}.
"""

import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print(json.dumps({"error": "torch is not installed"}), flush=True)
    sys.exit(0)


def copy(request):
    source = torch.randn(request["rows"], request["vocabulary"])
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def token_log_probs(request):
    logits = torch.randn(request["rows"], request["vocabulary"])
    targets = torch.randint(0, request["vocabulary"], (request["rows"], 1))

    def step():
        leaf = logits.detach().requires_grad_(True)
        torch.log_softmax(leaf, -1).gather(1, targets).sum().backward()

    return step


def head(request):
    hidden = torch.randn(request["rows"], request["depth"])
    weight = torch.randn(request["vocabulary"], request["depth"]) * 0.1
    targets = torch.randint(0, request["vocabulary"], (request["rows"], 1))
    return hidden, weight, targets


def linear_token_log_probs(request):
    hidden, weight, targets = head(request)

    def step():
        h, w = hidden.detach().requires_grad_(True), weight.detach().requires_grad_(True)
        torch.log_softmax(h @ w.T, -1).gather(1, targets).sum().backward()

    return step


def objective(request):
    hidden, weight, targets = head(request)
    pairs = request["pairs"]
    reference = torch.full((2 * pairs,), -1000.0)

    def step():
        h, w = hidden.detach().requires_grad_(True), weight.detach().requires_grad_(True)
        tokens = torch.log_softmax(h @ w.T, -1).gather(1, targets)
        ratios = tokens.view(2 * pairs, -1).sum(1) - reference
        chosen, rejected = ratios.chunk(2)
        (-F.logsigmoid(0.1 * (chosen - rejected))).mean().backward()

    return step


WORK = {"copy": copy, "tokenLogProbs": token_log_probs, "linearTokenLogProbs": linear_token_log_probs, "objective": objective}


def main():
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    steps = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps({name: value for name, value in request.items() if name != "runs"})
        if key not in steps:
            steps[key] = WORK[request["work"]](request)
            steps[key]()
        times = []
        for _ in range(request["runs"]):
            begin = time.perf_counter()
            steps[key]()
            times.append(1e3 * (time.perf_counter() - begin))
        print(json.dumps({"ms": times}), flush=True)


main()
