"""What every test is held to: one thread, and nothing global changed behind its back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import numpy as np
import pyro
import pytest
import torch
from fork_server import started

torch.set_num_threads(1)


# What takes longest begins first; else, all other workers would wait for it at the end.
LONGEST = "test_readme.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture(autouse=True)
def nothing_global_changes() -> Iterator[None]:
    pyro.clear_param_store()
    before = _global_state()
    yield
    assert _global_state() == before
    pyro.clear_param_store()


@pytest.fixture(scope="module")
def ready_python() -> Iterator[None]:
    """Workers of sweeps are forks of a process that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(started()))
        yield


def _global_state() -> dict[str, object]:
    return {
        "parameters": sorted(pyro.get_param_store().keys()),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "denormals": sys.float_info.min / 2 > 0.0,
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "validation": (pyro.distributions.is_validation_enabled(), torch.distributions.Distribution._validate_args),
        "grad": torch.is_grad_enabled(),
        "module_local": pyro.settings.get("module_local_params"),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
    }


def generator_states() -> list[object]:
    """The states of the global generators, comparable."""
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
