"""A problem: a Pyro model and the data that it is called with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from sweepvi.errors import ConfigError
from sweepvi.errors import Problem as Complaint
from sweepvi.guides.guide import Program
from sweepvi.keys import Keyed
from sweepvi.loading import Load


@dataclass(frozen=True)
class Problem:
    """What is to be inferred: ``model(*args, **kwargs)``, and the same arguments for the guide."""

    model: Program
    """What runs; or a class or :class:`Fresh`, of which every fit makes its own."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    heldout: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    """The same for data that the fit does not see, on which its predictions are judged."""

    def to(self, dtype: torch.dtype, device: torch.device) -> Problem:
        """The same problem on a copy of its data: floating-point tensors as ``dtype``, all on ``device``."""
        return replace(
            self,
            args=tuple(_moved(value, dtype, device) for value in self.args),
            kwargs={key: _moved(value, dtype, device) for key, value in self.kwargs.items()},
            heldout=_moved(self.heldout, dtype, device),
        )


@dataclass(frozen=True)
class Fresh:
    """Stands for a model with networks: called without arguments, as a class would be, it makes one.

    That happens under the fit's own seed, and data is loaded under one that all fits share. So two seeds fit the same
    data from different weights.
    """

    make: Callable[[], Program]

    def __call__(self) -> Program:
        """A new model."""
        return self.make()


def given_problem(model: Program, args: Any, kwargs: Mapping[str, Any] | None) -> Problem:
    """The problem of a model given in Python; ``ConfigError`` if ``args`` is no list or tuple of arguments."""
    if not isinstance(args, list | tuple):
        message = f"must be a tuple of arguments, not a {type(args).__name__}: write (x,)"
        raise ConfigError([Complaint("args", message)])
    return Problem(model, tuple(args), dict(kwargs or {}))


def _moved(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        # A copy, so that a model which works in place changes nothing of the user's.
        return value.detach().to(device, dtype if value.is_floating_point() else value.dtype, copy=True)
    if isinstance(value, Mapping):
        return {key: _moved(entry, dtype, device) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        entries = [_moved(entry, dtype, device) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


@dataclass(frozen=True)
class Model(Keyed, ABC):
    """A model component: what ``conf/model/*.yaml`` names."""

    brings_guide: ClassVar[bool] = False
    """Whether what runs has a method ``guide``, for ``guide=own``."""

    @abstractmethod
    def problem(self, load: Load) -> Problem:
        """The model with its data; ``load`` resolves Python paths."""
