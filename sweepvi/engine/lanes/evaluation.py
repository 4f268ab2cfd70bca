"""One evaluation of a fit's loss as a pure function of parameters, estimator state and noise.

The estimator's own code runs, with model and guide as they are. Around it, parameters take the places of those in
Pyro's store and in networks, random functions take numbers that are handed in, and a call of ``backward`` is noted
instead of run: what it was called on is what to differentiate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions.constraints import real
from torch.nn.functional import logsigmoid
from torch.overrides import TorchFunctionMode

from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX
from sweepvi.estimators.frozen import fixing_by
from sweepvi.private import (
    as_parameter,
    carries_gradient,
    constraints_table,
    tensor_tables,
    transformable,
    unconstrained_params,
)
from sweepvi.problem import Problem


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation returns."""

    surrogate: Tensor
    """Shape []; its gradient is that of the loss."""
    loss: Tensor
    """The estimate of the loss, shape []."""
    state: dict[str, Tensor]
    """The estimator's state after it, by name."""


class Evaluation:
    """A pure function: parameters and estimator state in; surrogate, loss and state out.

    Draws come from a :class:`sweepvi.engine.lanes.randomness.Randomness` that the caller has entered.

    Args:
        elbo: the estimator's object; it has been evaluated once before.
        programs: ``{"model": …, "guide": …}``.
        problem: what they are called with.
        modules: the networks that run.
        params: the fit's own unconstrained parameters, by name.
        constraints: of these and of the estimator's state, by name.

    """

    def __init__(
        self,
        elbo: Any,
        programs: Mapping[str, Any],
        problem: Problem,
        modules: Mapping[str, nn.Module],
        params: Mapping[str, Tensor],
        constraints: Mapping[str, Any],
    ) -> None:
        self.elbo, self.programs, self.problem = elbo, programs, problem
        self._constraints = constraints
        self._tables = [table for module in modules.values() for table in tensor_tables(module)]
        names = {id(param): name for name, param in params.items()}
        self._places = [
            (table, key, names[id(tensor)])
            for table in self._tables
            for key, tensor in table.items()
            if id(tensor) in names
        ]
        """Where networks hold parameters: table, key in it, the parameter's name."""
        self._in_networks = {name for _, _, name in self._places}

    def __call__(
        self, params: Mapping[str, Tensor], state: Mapping[str, Tensor], numbers: Mapping[str, Tensor]
    ) -> Evaluated:
        """Evaluate the loss.

        Args:
            params: unconstrained parameters by name.
            state: the estimator's, by name.
            numbers: what takes the place of numbers in the estimator's object, by where they are: shape [] each.

        """
        with ExitStack() as stack:
            stack.enter_context(self.placed(params))
            stack.enter_context(_replaced(self.elbo, numbers))
            self._place(state)
            stack.enter_context(fixing_by(lambda: self._fixed(params)))
            notes = stack.enter_context(NotedBackward())
            loss = self.elbo.loss_and_grads(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
            store = unconstrained_params()
            after = {name: value.detach() for name, value in store.items() if name.startswith(BASELINE_STATE_PREFIX)}
        return Evaluated(sum(notes.surrogates, torch.zeros(())), torch.as_tensor(loss), after)

    def of(self, elbo: Any) -> Evaluation:
        """The same of another estimator's object."""
        found = copy.copy(self)
        found.elbo = elbo
        return found

    @contextmanager
    def placed(self, params: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, programs run with these unconstrained parameters, as functions that can be transformed."""
        with pyro.get_param_store().scope(), transformable(), self._restored_tables():
            self._place(params)
            yield

    def _place(self, values: Mapping[str, Tensor]) -> None:
        """Let tensors take the places of parameters of their names.

        Those of networks get into the store by the programs' own doing, from the networks.
        """
        store, constraints = unconstrained_params(), constraints_table()
        for name, value in values.items():
            if name not in self._in_networks or name in store:
                store[name] = value
                constraints[name] = self._constraints.get(name, real)
                pyro.get_param_store()._param_to_name[value] = name
        for table, key, name in self._places:
            if name in values:
                # A PyroModule tells Pyro of its parameters by their type, and Pyro asks for gradients only then.
                table[key] = as_parameter(values[name])

    @contextmanager
    def _fixed(self, params: Mapping[str, Tensor]) -> Iterator[None]:
        self._place({name: value.detach() for name, value in params.items()})
        try:
            yield
        finally:
            self._place(params)

    @contextmanager
    def _restored_tables(self) -> Iterator[None]:
        before = [dict(table) for table in self._tables]
        try:
            yield
        finally:
            for table, entries in zip(self._tables, before, strict=True):
                table.clear()
                table.update(entries)


@contextmanager
def _replaced(elbo: Any, numbers: Mapping[str, Tensor]) -> Iterator[None]:
    places = {path: reduce(getattr, path.split(".")[:-1], elbo) for path in numbers}
    before = {path: getattr(owner, path.split(".")[-1]) for path, owner in places.items()}
    try:
        for path, number in numbers.items():
            setattr(places[path], path.split(".")[-1], number)
        yield
    finally:
        for path, number in before.items():
            setattr(places[path], path.split(".")[-1], number)


def _log_sigmoid(x: Tensor) -> Tensor:
    """As torch computes it; torch's own, on a CUDA device, does not pass through ``vmap``."""
    return torch.minimum(x, torch.zeros_like(x)) - torch.log1p(torch.exp(-x.abs()))


_DATA = Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
"""What reading a tensor's ``data`` calls; transforms do not know it."""

_REQUIRES_GRAD = Tensor.requires_grad.__get__  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
"""What reading ``requires_grad`` calls, by which estimators ask whether there is something to differentiate."""


class NotedBackward(TorchFunctionMode):
    """Inside, ``backward`` is noted and not run, and a value that leaves the tensors stays one."""

    def __init__(self) -> None:
        super().__init__()
        self.surrogates: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the class."""
        if func is Tensor.backward:
            self.surrogates.append(args[0])
            return None
        if func in (Tensor.item, _DATA):
            return args[0].detach()
        if func is Tensor.requires_grad_:
            return args[0]
        if func == _REQUIRES_GRAD:
            return carries_gradient(args[0])
        if func is logsigmoid and args[0].is_cuda:
            return _log_sigmoid(args[0])
        return func(*args, **({} if kwargs is None else kwargs))
