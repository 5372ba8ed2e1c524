"""Muon: momentum whose matrix updates are orthogonalised (Keller Jordan, 2024; scaling of arXiv:2502.16982).

torch's and timm's implementations orthogonalise in bfloat16, which a CPU without bfloat16 units runs hundreds of times
slower than float32; this one works in the precision of the gradient it is given. Everything that is not a matrix of a
hidden layer goes to torch's AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

#: Coefficients of the quintic Newton-Schulz step: steepest at zero, not exact (Jordan, 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of a matrix towards one by Newton-Schulz iteration.

    Args:
        matrix: `(rows, columns)`.
        steps: iterations; five bring every singular value into about 0.7 to 1.2.

    Returns:
        `(rows, columns)`, about `U V^T` of the singular value decomposition.
    """
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for the rest.

    A parameter goes to AdamW when it has fewer than two dimensions or its group says `fallback: True` (embeddings,
    heads, the first convolution). A convolution is taken as a matrix `(out, in * kernel)`. The update is scaled by
    `0.2 * sqrt(max(rows, columns))`, so that learning rate and decay mean what they mean for AdamW.

    Args:
        params: parameters or groups.
        lr: learning rate of the matrices.
        weight_decay: decoupled weight decay.
        momentum: of the gradient's running mean, with Nesterov's look-ahead.
        fallback_lr_scale: AdamW's learning rate as a multiple of the group's `lr`.
        betas: AdamW's.
        eps: AdamW's.
        steps: Newton-Schulz iterations.

    Raises:
        ValueError: parameters that FSDP2 has sharded, with the way out.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        fallback_lr_scale: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        steps: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "fallback_lr_scale": fallback_lr_scale,
            "betas": tuple(betas),
            "eps": eps,
            "steps": steps,
            "fallback": False,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; the constructor comes through here too.

        Raises:
            ValueError: parameters sharded over ranks: none of them holds the whole matrix to orthogonalise.
        """
        super().add_param_group(param_group)
        sharded = [tuple(p.shape) for p in self.param_groups[-1]["params"] if isinstance(p, DTensor)]
        if sharded:
            raise ValueError(
                f"optim: Muon takes whole matrices, and {len(sharded)} parameters are sharded over ranks (the first of "
                f"shape {sharded[0]}); choose optim=adamw, or trainer=ddp, which keeps parameters whole"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            rest = [p for p in ready if group["fallback"] or p.ndim < 2]
            for parameter in ready:
                if not (group["fallback"] or parameter.ndim < 2):
                    self._step_matrix(parameter, group)
            if rest:
                self._step_adamw(rest, group)
        return loss

    def _step_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalise(gradient.lerp(mean, group["momentum"]).flatten(1), group["steps"])
        size = 0.2 * max(update.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * size)

    def _step_adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = torch.zeros_like(parameter)
                self.state[parameter] = {"step": torch.tensor(0.0), "mean": zeros, "square": zeros.clone()}
            # the fused kernel reads the counter where the parameter lies; loading a state puts it on the CPU
            self.state[parameter]["step"] = self.state[parameter]["step"].to(parameter.device)
        states = [self.state[p] for p in parameters]
        adamw(
            list(parameters),
            [p.grad for p in parameters],
            [s["mean"] for s in states],
            [s["square"] for s in states],
            [],
            [s["step"] for s in states],
            fused=parameters[0].dtype == torch.float32,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"] * group["fallback_lr_scale"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
