"""Pyro's ``HorovodOptimizer`` for loops of one's own, without its faults.

Pyro's class clips gradients before they are averaged, while they may be on their way; it makes of a schedule a plain
optimizer; and it skips the average of what a rank has no gradient of. Here gradients are averaged first, all in one
piece, and then handed to the optimizer that is wrapped, whatever it does with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from sweepvi.distributed.horovod_ranks import demand_horovod
from sweepvi.errors import ConfigError, Problem, listed

KNOWN = ("compression", "op", "process_set")
"""Keywords of ``horovod.torch.DistributedOptimizer`` that are taken."""

WITHOUT_EFFECT = ("num_groups", "groups", "sparse_as_dense")
"""Others that say how Horovod is to put gradients together: here they are one piece anyway."""


class HorovodOptimizer(PyroOptim):
    """Averages gradients over all processes of an initialized Horovod, and then takes the step of another optimizer.

    Use it with ``pyro.infer.SVI`` as Pyro's own class is used, after ``hvd.init()``. Parameters are in the order of
    their names; when some are new, names, shapes and types are compared, and every process gets the values of rank 0.

    Args:
        pyro_optim: any of Pyro's optimizers, with ``clip_args`` or a schedule if it has one; one of sweepvi's as
            ``PyroOptim(sweepvi.optim.ClippedAdam, {"lr": 0.01})``.
        **horovod_kwargs: ``compression``, ``op`` and ``process_set``, as ``horovod.torch.DistributedOptimizer`` takes
            them. ``ConfigError`` of those that are not supported, and if Horovod cannot be imported.

    """

    def __init__(self, pyro_optim: PyroOptim, **horovod_kwargs: Any) -> None:
        self._horovod = demand_horovod()
        strange = [key for key in horovod_kwargs if key not in (*KNOWN, *WITHOUT_EFFECT)]
        if strange:
            message = f"is not supported; valid: {listed((*KNOWN, *WITHOUT_EFFECT))}"
            raise ConfigError([Problem.of(key, horovod_kwargs[key], message) for key in strange])
        super().__init__(pyro_optim.pt_optim_constructor, pyro_optim.pt_optim_args, pyro_optim.pt_clip_args)
        self.pyro_optim = pyro_optim
        self._how = {"op": self._horovod.Average, **{k: v for k, v in horovod_kwargs.items() if k in KNOWN}}
        self._with = {key: value for key, value in self._how.items() if key == "process_set"}
        self._met: list[tuple[str, tuple[int, ...], str]] = []

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Average the gradients of parameters, and step; a parameter without a gradient here counts as zero."""
        name_of = pyro.get_param_store().param_name
        named = {str(name_of(param)): param for param in params}
        named = dict(sorted(named.items()))
        manifest = [(name, tuple(param.shape), str(param.dtype)) for name, param in named.items()]
        if manifest != self._met:
            self._meet(manifest, named)
        self._average(list(named.values()))
        self.pyro_optim(list(named.values()), *args, **kwargs)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Let the schedule step, if the optimizer has one."""
        self.pyro_optim.step(*args, **kwargs)  # type: ignore[attr-defined]

    def get_state(self) -> dict[str, Any]:
        """The state of the optimizer."""
        return self.pyro_optim.get_state()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an optimizer."""
        self.pyro_optim.set_state(state_dict)

    def _meet(self, manifest: list[tuple[str, tuple[int, ...], str]], named: dict[str, Tensor]) -> None:
        found = self._horovod.allgather_object(manifest, name="sweepvi.parameters", **self._with)
        for rank, other in enumerate(found):
            if other != found[0]:
                differing = sorted({name for name, *_ in set(other) ^ set(found[0])})
                message = f"rank {rank} has other parameters than rank 0: {listed(differing)}"
                raise ConfigError([Problem("parameters", message)])
        known = {name for name, *_ in self._met}
        for name, param in named.items():
            if name not in known:
                self._horovod.broadcast_(param.data, 0, name=f"sweepvi.{name}", **self._with)
        self._met = manifest

    @torch.no_grad()
    def _average(self, params: list[Tensor]) -> None:
        for dtype in dict.fromkeys(param.dtype for param in params):
            alike = [param for param in params if param.dtype == dtype]
            grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in alike]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            flat = self._horovod.allreduce(flat, name=f"sweepvi.gradients.{dtype}", **self._how)
            for param, row in zip(alike, flat.split([param.numel() for param in alike]), strict=True):
                param.grad = row.view(param.shape)
