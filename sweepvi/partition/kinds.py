"""What a parameter is for, from its name, its constraint and its owner.

In this order:

* ``baseline``: a part of the name begins with ``baseline``, or is ``bl``;
* ``nn``: a weight of a neural network, or of anything else registered by ``pyro.module``;
* ``loc`` or ``scale``: the first part of the name that is one of the words below decides;
* ``scale``: the constraint is to positive numbers or to triangular matrices with a positive diagonal;
* ``rest``: all others.

The parts of a name are what lies between characters that are neither letters nor digits: those of
``AutoNormal.scales.mu`` are ``autonormal``, ``scales`` and ``mu``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pyro.nn import PyroModule
from torch import nn

from sweepvi.partition.group import Kind
from sweepvi.private import is_module_parameter

LOC = {"loc", "locs", "mean", "means", "mu"}
SCALE = {"scale", "scales", "sigma", "sd", "std", "stddev", "var", "variance", "cov", "tril", "concentration"}
_POSITIVE = {
    "greater_than",
    "greater_than_eq",
    "softplus_positive",
    "lower_cholesky",
    "softplus_lower_cholesky",
    "unit_lower_cholesky",
}


def kind_of(name: str, constraint: Any, in_network: bool) -> Kind:
    """The kind of a parameter.

    Args:
        name: its name in Pyro's parameter store.
        constraint: its ``torch.distributions.constraints.Constraint``.
        in_network: whether it is a weight of a neural network: see :func:`network_weights`.

    """
    parts = re.split(r"[^a-z0-9]+", name.lower())
    if any(part.startswith("baseline") or part == "bl" for part in parts):
        return "baseline"
    if in_network or is_module_parameter(name):
        return "nn"
    for part in parts:
        if part in LOC:
            return "loc"
        if part in SCALE:
            return "scale"
    return "scale" if _words(constraint) in _POSITIVE else "rest"


def network_weights(modules: Iterable[nn.Module]) -> set[int]:
    """The ``id`` of every parameter of torch's own kinds of modules, and of the user's ``nn.Module``s.

    What a guide or another pure ``PyroModule`` holds is a parameter of the model, whichever way it was declared.
    """
    parts = (part for module in modules for part in module.modules())
    return {id(param) for part in parts if not _is_pure_pyro(part) for param in part.parameters(recurse=False)}


def _is_pure_pyro(part: nn.Module) -> bool:
    bases = type(part).__mro__
    return isinstance(part, PyroModule) and all(issubclass(b, PyroModule) or b in (nn.Module, object) for b in bases)


def _words(constraint: Any) -> str:
    """A constraint's class as a word: ``greater_than`` for ``GreaterThan(lower_bound=0.0)``."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(constraint).__name__.strip("_")).lower()
