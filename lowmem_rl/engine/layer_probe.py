"""Gradients of frozen matrices, read from a LoRA adapter that has learned nothing yet.

A matrix W in 4 bit has no gradient, its adapter has one. With y = W x + s B A x and B = 0, and G the gradient of W:

    dL/dB = s G A^T        a projection of G on the r rows of A

A's entries are drawn at random, with mean 0 and variance v: E |dL/dB|^2 = s^2 r v |G|^2. The variance is known from A
itself, r v = |A|^2 / columns. The relative error of |G| is about sqrt(1 / (2 r k)), k the number of directions that G
really has: at most 0.18 for r = 16. `tests/train/test_layer_probe.py` holds it against the gradients of the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.engine.peft_model import ModelLike, layer_of
from lowmem_rl.trainable.scores import Matrix


@dataclass(frozen=True, slots=True)
class ProbedMatrix:
    """A frozen matrix and its adapter's outer matrix."""

    key: Matrix
    outer: Any
    """B, (rows, r); the adapter adds s B A."""
    factor: float
    """An estimate of |G|^2 over |dL/dB|^2."""


def probed_matrices(model: ModelLike) -> Iterator[ProbedMatrix]:
    """Yields the matrices of a model's decoder layers that have an adapter. Raises `ValueError` if it has learned."""
    for name, module in model.named_modules():
        layer = layer_of(f"{name}.")
        if layer is None or not hasattr(module, "lora_B"):
            continue
        inner, outer = (getattr(module, part)["default"].weight for part in ("lora_A", "lora_B"))
        if outer.any():
            raise ValueError(f"the adapter of {name} has learned: its gradients are no projection of the matrix's")
        squared = float(inner.detach().double().square().sum())
        factor = inner.shape[1] / (module.scaling["default"] ** 2 * squared)
        yield ProbedMatrix((layer, name.rpartition(".")[2]), outer, factor)


@dataclass
class GradientSums:
    """The gradients of rounds of sampling: added up over all prompts, and their squared norms prompt by prompt.

    Sums are on the host, in float32, as large as all B together.
    """

    matrices: tuple[ProbedMatrix, ...]
    rounds: int = 0
    """Rounds that had a gradient."""
    skipped: list[int] = field(default_factory=list)
    """Numbers, from 1, of those that had none."""
    is_finite: bool = True
    """False if a gradient of the present round is not a number."""

    def __post_init__(self) -> None:
        self.sums = [torch.zeros(one.outer.shape) for one in self.matrices]
        self.squares = [0.0 for _ in self.matrices]

    def begin_round(self) -> None:
        """Begins a round; one that is begun again, after memory ran out, counts once."""
        self.is_finite, self.has_gradient = True, False
        self.round_sums = [torch.zeros_like(one) for one in self.sums]
        self.round_squares = [0.0 for _ in self.squares]
        for one in self.matrices:
            one.outer.grad = torch.zeros_like(one.outer)

    def add_prompt(self, scale: float = 1.0) -> None:
        """Adds the present gradient, of a loss times `scale`, as that of one prompt, and clears it."""
        for number, one in enumerate(self.matrices):
            gradient: Tensor = one.outer.grad.float().cpu() / scale
            one.outer.grad.zero_()
            square = float(gradient.double().square().sum())
            self.is_finite = self.is_finite and square < float("inf")  # NaN too
            self.has_gradient = self.has_gradient or square > 0
            self.round_sums[number] += gradient
            self.round_squares[number] += square

    def end_round(self) -> None:
        """Keeps what the round has added."""
        if not self.has_gradient:
            self.skipped.append(self.rounds + len(self.skipped) + 1)
            return
        self.rounds += 1
        for total, added in zip(self.sums, self.round_sums, strict=True):
            total += added
        self.squares = [total + added for total, added in zip(self.squares, self.round_squares, strict=True)]

    def squared_mean(self) -> dict[Matrix, float]:
        """Returns an estimate of the squared norm of each matrix's mean gradient. Needs a round."""
        squares = (float(total.double().square().sum()) for total in self.sums)
        found = zip(self.matrices, squares, strict=True)
        return {one.key: one.factor * square / self.rounds**2 for one, square in found}

    def summed_squares(self) -> dict[Matrix, float]:
        """Returns an estimate of each matrix's squared gradient norms, prompt by prompt, added up: the empirical
        Fisher information's trace."""
        return {one.key: one.factor * square for one, square in zip(self.matrices, self.squares, strict=True)}
