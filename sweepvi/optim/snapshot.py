"""The state of an optimizer by parameter name: copies out, copies in.

Unlike ``state_dict``, it does not depend on the order of the parameters, shares no memory with the live state, and
leaves the configured hyperparameters alone when it is loaded, unless told otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import CheckpointError, listed


@dataclass
class OptimizerSnapshot:
    """What a continuation needs of an optimizer; plain data and tensors, safe for ``torch.load(weights_only=True)``."""

    slots: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameter → slot → tensor, or number; with the parameter's own count of updates under ``step``."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Parameter → its shape, for every parameter that the optimizer has, with or without slots."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """Hyperparameters and clock of each parameter group."""


def snapshot(optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor] | None = None) -> OptimizerSnapshot:
    """Copy the state of an optimizer.

    Args:
        optimizer: any torch optimizer.
        params: its parameters by name; None if it was made of named parameters.

    Raises:
        ValueError: if ``params`` is None and the parameters have no names.

    """
    params = _named(optimizer) if params is None else params
    return OptimizerSnapshot(
        {name: _copied(optimizer.state[param]) for name, param in params.items() if optimizer.state.get(param)},
        {name: tuple(param.shape) for name, param in params.items()},
        [plain_group(group) for group in optimizer.param_groups],
    )


def load_snapshot(
    optimizer: torch.optim.Optimizer,
    saved: OptimizerSnapshot,
    params: Mapping[str, Tensor] | None = None,
    hyperparameters: bool = False,
) -> None:
    """Continue from a snapshot, whatever steps the optimizer has taken; nothing is changed if parameters do not fit.

    Args:
        optimizer: an optimizer of the same kind, over parameters of the same names.
        saved: what to continue from; copied.
        params: the parameters by name; None if the optimizer was made of named parameters.
        hyperparameters: take over the saved hyperparameters too; the step size, for one. The clock always is.

    Raises:
        CheckpointError: with all parameters that only one side has, or that differ in shape.
        ValueError: if ``params`` is None and the parameters have no names.

    """
    params = _named(optimizer) if params is None else params
    demand_fit(saved.shapes, {name: tuple(param.shape) for name, param in params.items()})
    if len(saved.groups) != len(optimizer.param_groups):
        raise CheckpointError(
            f"the snapshot has {len(saved.groups)} parameter groups, the optimizer {len(optimizer.param_groups)}"
        )
    for name, param in params.items():
        load_slots(optimizer, param, saved.slots.get(name, {}))
    for group, old in zip(optimizer.param_groups, saved.groups, strict=True):
        group.update({key: _copy(value) for key, value in old.items() if hyperparameters or key == "clock"})


def load_slots(optimizer: torch.optim.Optimizer, param: Tensor, slots: Mapping[str, Any]) -> None:
    """Replace the state of one parameter by a copy, on the parameter's device."""
    fresh = {
        name: value.to(param.device if name != "step" else value.device, copy=True)
        if isinstance(value, Tensor)
        else value
        for name, value in slots.items()
    }
    if fresh:
        optimizer.state[param] = fresh
    else:
        optimizer.state.pop(param, None)
    forget = getattr(optimizer, "forget_batches", None)
    if forget is not None:
        forget()


def demand_fit(saved: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``CheckpointError`` unless both sides have the same parameters with the same shapes."""
    wrong = []
    if unseen := here.keys() - saved.keys():
        wrong.append(f"parameters that the checkpoint lacks: {listed(sorted(unseen))}; it has {listed(saved)}")
    if missing := saved.keys() - here.keys():
        wrong.append(f"parameters that only the checkpoint has: {listed(sorted(missing))}; here are {listed(here)}")
    for name in sorted(here.keys() & saved.keys()):
        if tuple(saved[name]) != tuple(here[name]):
            wrong.append(f"parameter {name!r} is {tuple(here[name])} here, {tuple(saved[name])} in the checkpoint")
    if wrong:
        raise CheckpointError("; ".join(wrong))


def plain_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """What of a parameter group is not parameters: hyperparameters, and numbers that the optimizer keeps there."""
    return {key: _copy(value) for key, value in group.items() if key not in ("params", "param_names")}


def _named(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        if "param_names" not in group:
            raise ValueError(
                "the parameters have no names: make the optimizer of module.named_parameters(), or pass params"
            )
        named |= dict(zip(group["param_names"], group["params"], strict=True))
    return named


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) for name, value in state.items()}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
