"""Gives parameters the values of a checkpoint, when and as the model creates them."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.errors import CheckpointError
from sweepvi.private import constraint_of, unconstrained_params
from sweepvi.random_state import get_random_state, set_random_state


class Restoring(Messenger):
    """A handler for the steps after a resumption: a parameter that the model creates only later is served too.

    Attributes:
        values: unconstrained values of the parameters that do not exist yet, by name.
        constraints: the constraints that parameters had, in words, by name.

    """

    def __init__(self, values: dict[str, Tensor], constraints: dict[str, str]) -> None:
        super().__init__()
        self.values = dict(values)
        self.constraints = constraints

    def restore_existing(self) -> None:
        """Serve every parameter that the store has."""
        for name in list(unconstrained_params()):
            self._restore(name)

    def _restore(self, name: str) -> None:
        if name not in self.values:
            return
        value, param, constraint = self.values.pop(name), unconstrained_params()[name], repr(constraint_of(name))
        if value.shape != param.shape or value.dtype != param.dtype:
            raise CheckpointError(
                f"parameter {name!r} is {tuple(param.shape)} {param.dtype} here, "
                f"{tuple(value.shape)} {value.dtype} in the checkpoint"
            )
        if constraint != self.constraints[name]:
            raise CheckpointError(
                f"parameter {name!r} is constrained to {constraint} here, to {self.constraints[name]} in the checkpoint"
            )
        param.data.copy_(value)

    def _pyro_param(self, msg: Any) -> None:
        name, store = msg["name"], pyro.get_param_store()
        if name not in self.values:
            return
        if name not in store:
            # The first time, before the checkpoint, the initial value was drawn; this time, nothing may be.
            random_state = get_random_state()
            store.setdefault(name, msg["args"][1], msg["kwargs"]["constraint"])
            set_random_state(*random_state)
        self._restore(name)
