"""Every private part of torch and Pyro that sweepvi touches, each with its reason; a test watches over each.

A new release that changes one of these breaks ``tests/test_private.py``, which names it.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER
from torch import Tensor

# One call for many small tensors: the public way is a Python call each. torch.optim is built on these.
foreach_copy_: Any = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
foreach_add_: Any = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
foreach_zero_: Any = torch._foreach_zero_  # pyright: ignore[reportPrivateImportUsage]

# Public, but not exported where it is documented.
LinAlgError: type[Exception] = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every element of every tensor is finite; one synchronisation, whatever their number."""
    norms = torch._foreach_norm(list(tensors), math.inf)  # pyright: ignore[reportPrivateImportUsage]
    return bool(torch.isfinite(torch.stack(list(norms))).all())


def unconstrained_params() -> dict[str, Tensor]:
    """The parameter store's own unconstrained tensors by name, live.

    The public ``items()`` computes every constrained value, and ``get_state()`` copies the table.
    """
    return pyro.get_param_store()._params


def constraint_of(name: str) -> Any:
    """The constraint of a parameter; the public way copies the table."""
    return pyro.get_param_store()._constraints[name]


def is_module_parameter(name: str) -> bool:
    """Whether a parameter's name is of one registered by ``pyro.module``."""
    return _MODULE_NAMESPACE_DIVIDER in name


def tensor_tables(module: torch.nn.Module) -> list[dict[str, Any]]:
    """The tables of parameters and buffers of a network and its parts.

    Putting a network back as it was needs the tables themselves: ``PyroModule`` replaces entries in them.
    """
    return [table for part in module.modules() for table in (part._parameters, part._buffers)]


def fresh_autoguide(guide: AutoGuide) -> AutoGuide:
    """A copy of an autoguide, and of the guides in it, that shares their models.

    Pyro's autoguides drop their model when they are copied: both the copy and the original.
    """
    parts = [part for part in guide.modules() if isinstance(part, AutoGuide)]
    models = [part._model for part in parts]
    copied = copy.deepcopy(guide, {id(model): model for model in models})
    copies = [part for part in copied.modules() if isinstance(part, AutoGuide)]
    for part, twin, model in zip(parts, copies, models, strict=True):
        part._model = twin._model = model
        if part is not guide:
            part._update_master(weakref.ref(guide))
    return copied


def is_subsample(site: Any) -> bool:
    """Whether a trace's site is a plate's choice of a minibatch; Pyro has no public sign of it."""
    return type(site["fn"]).__name__ == "_Subsample"


def is_minibatch(site: Any) -> bool:
    """Whether a trace's site is a plate's choice of fewer entries than there are."""
    return is_subsample(site) and len(site["value"]) < site["fn"].size


def is_deterministic(site: Any) -> bool:
    """Whether a trace's site is a ``pyro.deterministic`` statement."""
    return bool(site["infer"].get("_deterministic"))


def set_fill_uninitialized_memory(fill: bool) -> bool:
    """Whether deterministic algorithms fill new memory, a cost at every allocation; returns what it was."""
    deterministic: Any = torch.utils.deterministic
    before = deterministic.fill_uninitialized_memory
    deterministic.fill_uninitialized_memory = fill
    return before


def validates_distributions() -> bool:
    """Whether torch's distributions check their arguments by default; the public way can only be written."""
    return torch.distributions.Distribution._validate_args
