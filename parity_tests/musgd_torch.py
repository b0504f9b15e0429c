"""Ultralytics' MuSGD in torch, written independently: its arguments, groups and names of state.

``test_musgd_torch`` compares it with the recordings of the original.
"""

import torch

A, B, C = 3.4445, -4.7750, 2.0315


class MuSGD(torch.optim.Optimizer):
    """Muon's step, then SGD's, in groups with ``use_muon``; SGD's only in others.

    ``muon`` and ``sgd`` are attributes, as in the original; ``iteration_dtype`` is an addition.
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0.0,
        weight_decay=0.0,
        nesterov=False,
        use_muon=False,
        muon=0.5,
        sgd=0.5,
        iteration_dtype=torch.bfloat16,
    ):
        names = ("lr", "momentum", "weight_decay", "nesterov", "use_muon")
        arguments = locals()
        super().__init__(params, {name: arguments[name] for name in names})
        self.muon, self.sgd, self.iteration_dtype = muon, sgd, iteration_dtype

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p], group)

    def update(self, p, g, state, group):
        rate, beta = group["lr"], group["momentum"]
        names = ["momentum_buffer"] + ["momentum_buffer_SGD"] * group["use_muon"]
        for name in names:
            state.setdefault(name, torch.zeros_like(p))
        buffer, is_nesterov = state[names[-1]], group["nesterov"]
        if group["use_muon"]:
            average = state["momentum_buffer"]
            average.mul_(beta).add_(g, alpha=1 - beta)
            move = average.mul(beta).add_(g, alpha=1 - beta) if is_nesterov else average
            scale = max(1, p.shape[-2] / p.shape[-1]) ** 0.5
            move = self.orthogonal(move.flatten(1)).to(p.dtype).reshape(p.shape)
            p.add_(move.mul_(scale), alpha=-(rate * self.muon))
            rate *= self.sgd
        if group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        buffer.mul_(beta).add_(g)
        p.add_(g.add(buffer, alpha=beta) if is_nesterov else buffer, alpha=-rate)

    def orthogonal(self, matrix):
        x = matrix.to(self.iteration_dtype)
        x = x / (x.norm() + 1e-7)
        is_tall = x.shape[0] > x.shape[1]
        x = x.T if is_tall else x
        for _ in range(5):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
        return x.T if is_tall else x
