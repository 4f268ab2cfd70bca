"""Any scheduler of ``torch.optim.lr_scheduler``, by the name of its class.

The scheduler runs on an optimizer of its own whose step size is 1, so that the size it sets is the factor. What it is
after n steps depends on n alone: a continuation takes the steps again, without the fit.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch

from sweepvi.errors import unknown
from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule, State, Time

_INSTEAD = {
    "ReduceLROnPlateau": "use scheduler=plateau, which sees the loss",
    "SequentialLR": "use scheduler=sequential",
    "ChainedScheduler": "use scheduler=product",
    "LambdaLR": "it needs a function, and a configuration holds none; try piecewise or inverse_time",
    "MultiplicativeLR": "it needs a function, and a configuration holds none; try piecewise or exponential",
    "SWALR": "it anneals towards averaging weights, which this does not do; try cosine",
}
_ABSTRACT = {"LRScheduler", "_LRScheduler"}


def _classes() -> dict[str, type]:
    module = torch.optim.lr_scheduler
    found = {name: getattr(module, name) for name in module.__all__ if name not in _ABSTRACT}
    return {name: cls for name, cls in found.items() if isinstance(cls, type)}


@dataclass(frozen=True)
class TorchSchedule(Schedule):
    """A scheduler of torch.optim.lr_scheduler, by name; eager engine only."""

    scheduler: Annotated[str, Key("class in torch.optim.lr_scheduler, such as CosineAnnealingLR")]
    arguments: Annotated[
        Mapping[str, Any], Key("its arguments by name; step sizes in units of the optimizer's own")
    ] = field(default_factory=dict)

    def conflicts(self) -> dict[str, str]:
        """The class exists, can be used, and takes the arguments."""
        classes = _classes()
        if self.scheduler in _INSTEAD:
            return {"scheduler": _INSTEAD[self.scheduler]}
        if self.scheduler not in classes:
            return {"scheduler": unknown("scheduler of torch", self.scheduler, classes.keys() - _INSTEAD.keys())}
        if self.arguments.get("cycle_momentum"):
            return {"arguments": "cycle_momentum is not supported: the momentum belongs to the optimizer"}
        # Whatever torch thinks of the arguments is the user's to read.
        try:
            _Factors(self.scheduler, self.arguments)
        except Exception as error:
            return {"arguments": f"{self.scheduler} does not take them: {error}"}
        return super().conflicts()

    @functools.cached_property
    def _factors(self) -> _Factors:
        return _Factors(self.scheduler, self.arguments)

    def at(self, time: Time, state: State) -> float:
        """The step size that torch's scheduler sets after ``time`` steps of an optimizer whose own is 1."""
        del state
        if isinstance(time, torch.Tensor):
            raise TypeError("torch's own schedulers run for one fit at a time, not over lanes")
        return self._factors.after(time)


class _Factors:
    """The step sizes that a scheduler sets, one after the other."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        cls = _classes()[name]
        momentum = {"cycle_momentum": False} if "cycle_momentum" in inspect.signature(cls).parameters else {}
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._scheduler = cls(self._optimizer, **{**arguments, **momentum})
        self._known = [self._now()]

    def _now(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def after(self, time: int) -> float:
        """The factor after ``time`` steps; where torch's scheduler has an end, its last."""
        # Only OneCycleLR has an end; it takes one step past it before it raises.
        time = min(time, getattr(self._scheduler, "total_steps", time + 1) - 1)
        while len(self._known) <= time:
            self._optimizer.step()
            with warnings.catch_warnings():
                # Torch warns of deprecated arguments of its own.
                warnings.simplefilter("ignore")
                self._scheduler.step()
            self._known.append(self._now())
        return self._known[time]
