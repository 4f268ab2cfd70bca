"""The random generators that Pyro and torch draw from: set, put back, saved."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor


def raw_random_state() -> tuple[Any, ...]:
    """The state of every generator, cheaply, for this process only."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state(), cuda


def set_raw_random_state(state: tuple[Any, ...]) -> None:
    """Put the generators into a state of :func:`raw_random_state`."""
    pythons, numpys, torchs, cuda = state
    random.setstate(pythons)
    np.random.set_state(numpys)
    torch.set_rng_state(torchs)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


ONE_AT_A_TIME = threading.RLock()
"""Generators, Pyro's parameter store and its stack of handlers are global: two threads that fit would mix them."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, Python's, NumPy's and torch's generators start from ``seed``; afterwards they are as before.

    Another thread waits until this one is out.
    """
    with ONE_AT_A_TIME:
        before = raw_random_state()
        try:
            _seed(seed)
            yield
        finally:
            set_raw_random_state(before)


def _seed(seed: int) -> None:
    """As Pyro does. Where there is no accelerator, torch would note to seed one later, with a traceback each time."""
    if torch.accelerator.is_available():
        pyro.set_rng_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def get_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of every generator, as tensors and what goes into JSON."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        tensors |= {f"cuda{index}": state for index, state in enumerate(states)}
    meta = {"python": [version, gauss], "numpy": [int(position), int(has_gauss), float(cached)]}
    return tensors, meta


def set_random_state(tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Put the generators into a state of :func:`get_random_state`."""
    version, gauss = meta["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    position, has_gauss, cached = meta["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    for name, state in tensors.items():
        if name.startswith("cuda"):
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
