"""What the ranks of a fit have in common, and one all-reduce that keeps it so."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pyro
import torch
from torch import Tensor, nn

from sweepvi.distributed import Ranks
from sweepvi.distributed.ranks import average_compressed_
from sweepvi.errors import ConfigError, Problem
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX
from sweepvi.private import all_finite, unconstrained_params


@dataclass(frozen=True)
class Averaged:
    """What all ranks know after an all-reduce, the same on all."""

    loss: float
    """Average of the ranks' losses."""
    finite: bool
    """Whether it and all averaged gradients are finite."""
    asked: bool
    """Whether a rank has been asked to stop."""


Manifest: TypeAlias = dict[str, tuple[tuple[int, ...], str, bool]]
"""Name → shape, type, and whether a gradient is taken; in the order of names."""

LOSS, ASKED, GREW, HEAD = range(4)
"""Places in what is sent before gradients, and their number: beside them, whether each parameter has a gradient."""


class Together:
    """Parameters, estimator state and floating-point buffers, in the order of their names, on all ranks of a fit.

    Args:
        ranks: of the fit.
        compression: what gradients are sent as.
        modules: the networks that run, by path.
        course: what must be the same on all ranks beside parameters.

    """

    def __init__(self, ranks: Ranks, compression: str, modules: Mapping[str, nn.Module], course: str) -> None:
        self._ranks, self._compression, self._modules, self._course = ranks, compression, modules, course
        self._manifest: Manifest = {}
        self._buffer = torch.empty(0)

    def meet(self) -> None:
        """Compare names, shapes and types, and give all ranks the values of rank 0.

        Raises ``ConfigError``, on all ranks, if they differ.
        """
        tensors = self._tensors()
        manifest = _manifest(tensors)
        found = self._ranks.gathered((self._course, manifest))
        _demand_equal([course for course, _ in found], [each for _, each in found])
        self._manifest = manifest
        with torch.no_grad():
            for name, tensor in tensors.items():
                sent = tensor.detach().clone().contiguous()
                self._ranks.broadcast_(sent)
                self._put(name, tensor, sent)

    def average(self, loss: float, asked: bool) -> Averaged:
        """Average loss, gradients, estimator state and buffers over the ranks; raises ``LostRanksError``.

        A parameter that has no gradient here counts as zero, unless it has none on any rank. Gradients are changed only
        if the result is finite. A parameter that is new on all ranks gets rank 0's value.
        """
        while True:
            tensors = self._tensors()
            head, flat = self._flat(tensors, loss, asked)
            exact = head if self._compression == "none" else head.clone()
            self._ranks.average_(flat if self._compression == "none" else exact)
            if self._compression != "none":
                average_compressed_(self._ranks, flat[len(head) :], self._compression)
                head.copy_(exact)
            numbers = head[: HEAD + len(self._names(True))].tolist()
            if not numbers[GREW]:
                break
            # The gradients of this step were taken at each rank's own first value of what is new.
            self.meet()
        finite = all_finite([flat])
        if finite:
            self._take(tensors, numbers[HEAD:], flat)
        return Averaged(numbers[LOSS], finite and math.isfinite(numbers[LOSS]), bool(numbers[ASKED]))

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that ranks have in common, live, in the order of names; a shared one under its first name."""
        params = unconstrained_params()
        found = {name: param for name, param in params.items() if not name.startswith(BASELINE_STATE_PREFIX)}
        known: set[int] = set()
        ours = {n: p for n, p in found.items() if not (id(p) in known or known.add(id(p)))}
        states = {name: param for name, param in params.items() if name.startswith(BASELINE_STATE_PREFIX)}
        buffers = {
            f"{_BUFFER}{path}/{name}": buffer
            for path, module in self._modules.items()
            for name, buffer in module.named_buffers()
            if buffer.is_floating_point() and id(buffer) not in known and not known.add(id(buffer))
        }
        return dict(sorted({**ours, **states, **buffers}.items()))

    def _names(self, gradients: bool) -> list[str]:
        return [name for name in self._manifest if _is_state(name) != gradients]

    def _flat(self, tensors: Mapping[str, Tensor], loss: float, asked: bool) -> tuple[Tensor, Tensor]:
        """What is sent: flags, loss and state, which are never compressed; and all of it, gradients after them."""
        params = [tensors.get(name) for name in self._names(True)]
        grads = [None if param is None else param.grad for param in params]
        grew = _manifest(tensors) != self._manifest
        dtype = functools.reduce(torch.promote_types, (_real(t).dtype for t in tensors.values()))
        device = next(iter(tensors.values())).device
        flags = torch.tensor([loss, asked, grew, *(grad is not None for grad in grads)], dtype=dtype, device=device)
        states = [self._value(name, tensors.get(name), device) for name in self._names(False)]
        parts = [
            torch.zeros(self._numel(name), dtype=dtype, device=device) if grad is None else _row(grad, dtype)
            for name, grad in zip(self._names(True), grads, strict=True)
        ]
        pieces = [flags, *(_row(state, dtype) for state in states), *parts]
        size = sum(piece.numel() for piece in pieces)
        if (self._buffer.numel(), self._buffer.dtype, self._buffer.device) != (size, dtype, device):
            self._buffer = torch.empty(size, dtype=dtype, device=device)
        # Gradients of the step before may be views of it; they are used up.
        flat = torch.cat(pieces, out=self._buffer)
        return flat[: flat.numel() - sum(part.numel() for part in parts)], flat

    def _value(self, name: str, tensor: Tensor | None, device: torch.device) -> Tensor:
        return torch.zeros(self._numel(name), device=device) if tensor is None else tensor.detach()

    def _numel(self, name: str) -> int:
        shape, dtype, _ = self._manifest[name]
        return math.prod(shape) * (2 if "complex" in dtype else 1)

    def _take(self, tensors: Mapping[str, Tensor], used: list[float], flat: Tensor) -> None:
        names = [*self._names(False), *self._names(True)]
        rows = flat[HEAD + len(used) :].split([self._numel(name) for name in names])
        for name, row in zip(names, rows, strict=True):
            if _is_state(name):
                self._put(name, tensors[name], row)
        for name, row, users in zip(self._names(True), rows[len(names) - len(used) :], used, strict=True):
            param = tensors[name]
            real = row.view_as(_real(param.detach())).to(_real(param.detach()).dtype)
            own = torch.view_as_complex(real) if param.is_complex() else real
            param.grad = own if users else None

    def _put(self, name: str, tensor: Tensor, value: Tensor) -> None:
        """Give what is under a name a value, of its number of entries."""
        with torch.no_grad():
            if name.startswith(BASELINE_STATE_PREFIX):
                pyro.get_param_store()[name] = value.view_as(tensor).to(tensor.dtype).clone()
            else:
                tensor.copy_(value.view_as(tensor))


_BUFFER = "buffer of "


def _is_state(name: str) -> bool:
    """Whether it is averaged itself, and not its gradient."""
    return name.startswith((_BUFFER, BASELINE_STATE_PREFIX))


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _row(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return _real(tensor.detach()).reshape(-1).to(dtype)


def _manifest(tensors: Mapping[str, Tensor]) -> Manifest:
    return {name: (tuple(each.shape), str(each.dtype), each.requires_grad) for name, each in tensors.items()}


def _demand_equal(courses: list[str], manifests: list[Manifest]) -> None:
    """Raise ``ConfigError`` with what is different on other ranks than on rank 0."""
    problems = []
    for rank, (course, manifest) in enumerate(zip(courses, manifests, strict=True)):
        if course != courses[0]:
            message = "all must be started with the same command, on the same files"
            problems.append(
                Problem("distributed", f"rank {rank} has another configuration or data than rank 0: {message}")
            )
        for name in sorted(manifests[0].keys() | manifest.keys()):
            if manifest.get(name) != manifests[0].get(name):
                own, first = _said(manifest.get(name)), _said(manifests[0].get(name))
                problems.append(Problem("distributed", f"{name} is {own} on rank {rank}, {first} on rank 0"))
    if problems:
        raise ConfigError(problems)


def _said(entry: tuple[tuple[int, ...], str, bool] | None) -> str:
    return "missing" if entry is None else f"{entry[0]} {entry[1].removeprefix('torch.')}"
