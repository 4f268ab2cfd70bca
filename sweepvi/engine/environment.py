"""What is true around a fit and not after it: torch's defaults, random state, warnings, parameter store, networks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from sweepvi.private import set_fill_uninitialized_memory, use_deterministic_algorithms
from sweepvi.programs import FittedState, Isolation, Suspended, default_dtype, isolated
from sweepvi.random_state import seeded
from sweepvi.settings import Settings


@contextmanager
def environment(
    settings: Settings, modules: Mapping[str, nn.Module], state: FittedState | None = None
) -> Iterator[Isolation]:
    """Run the body as the settings say, seeded; leave nothing changed, whatever happens inside.

    ``modules`` are the networks that will run: they get the settings' type and device. ``state`` fits them.
    """
    with ExitStack() as stack:
        isolation = stack.enter_context(isolated(modules, state))
        stack.enter_context(seeded(settings.seed))
        stack.enter_context(_torch_defaults(settings))
        stack.enter_context(_quiet_about_nan())
        stack.enter_context(_quiet_about_plates())
        for module in modules.values():
            module.to(device_of(settings), dtype_of(settings))
        yield isolation


@contextmanager
def resumed(settings: Settings, modules: Mapping[str, nn.Module], suspended: Suspended) -> Iterator[None]:
    """The environment of programs that were suspended in one, and are again afterwards."""
    with environment(settings, modules) as isolation:
        suspended.put(isolation)
        try:
            yield
        finally:
            suspended.take()


def dtype_of(settings: Settings) -> torch.dtype:
    """The settings' floating-point type."""
    return {"float32": torch.float32, "float64": torch.float64}[settings.dtype]


def device_of(settings: Settings) -> torch.device:
    """The settings' device."""
    return torch.device(settings.device)


@contextmanager
def _torch_defaults(settings: Settings) -> Iterator[None]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.callback(use_deterministic_algorithms, deterministic, warn_only)
        stack.enter_context(default_dtype(dtype_of(settings)))
        if settings.deterministic:
            use_deterministic_algorithms(True, warn_only=True)
            stack.callback(set_fill_uninitialized_memory, set_fill_uninitialized_memory(False))
        # A default device costs a Python call at every torch function, so only where it is needed.
        if settings.device != "cpu":
            stack.enter_context(device_of(settings))
            # Which of equal values it finds is open; autoguides that start at medians want the value.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="median CUDA with indices", category=UserWarning)
        yield


@contextmanager
def _quiet_about_nan() -> Iterator[None]:
    """Pyro warns of every NaN; the loop looks for them itself and says so once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered (NaN|\\+?inf|-inf)", category=UserWarning)
        yield


@contextmanager
def _quiet_about_plates() -> Iterator[None]:
    """Pyro logs how many dimensions it finds that plates use, in every fit."""
    log = logging.getLogger("pyro.infer.elbo")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
