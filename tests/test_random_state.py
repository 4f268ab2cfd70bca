"""Generators are seeded as Pyro seeds them, and put back."""

import random

import numpy as np
import pyro
import pytest
import torch
from conftest import generator_states

from sweepvi.random_state import seeded


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_inside_it_is_pyros_seed_and_afterwards_as_before(seed):
    before = generator_states()
    with seeded(seed):
        inside = generator_states()
        random.random(), np.random.rand(), torch.rand(3)
    assert generator_states() == before
    with seeded(0):
        pyro.set_rng_seed(seed)
        assert generator_states() == inside
