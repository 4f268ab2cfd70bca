"""Fits as lanes change nothing but their result, however they end; and no fit depends on those before it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import generator_states
from torch import nn

import sweepvi
from sweepvi.engine.lanes import compaction, lane_fits
from sweepvi.engine.observer import Observer
from sweepvi.errors import ConfigError

ROWS = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)
STEPS = 70  # more than one chunk
HOW = {
    "engine": {
        "name": "lanes",
        "restarts": 2,
        "score_draws": 20,
        "posterior_draws": 0,
        "compile": "never",
        "threads": 2,
    },
    "steps": STEPS,
}


class Program:
    """A model with a network, a gamma and a Dirichlet, whose guide meets trouble at its n-th call."""

    def __init__(self, trouble=None, at=0):
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        self.net[1].bias.requires_grad_(False)
        self.net.train(False)  # else, Pyro warns of what needs no gradient
        self.net.register_buffer("unused", torch.ones(2))
        self.trouble, self.at, self.calls = trouble, at, 0

    def model(self, rows):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
        scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(rows)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z[..., None] * shares
            pyro.sample("rows", dist.Normal(loc, 0.1 + scale).to_event(1), obs=rows)

    def guide(self, rows):
        self.calls += 1
        if self.calls == self.at:
            raise self.trouble
        pyro.module("net", self.net)
        a, b = self.net(rows).unbind(-1)
        positive = dist.constraints.positive
        pyro.sample("shares", dist.Dirichlet(pyro.param("c", torch.ones(3), constraint=positive)))
        pyro.sample("scale", dist.Gamma(pyro.param("a", torch.tensor(2.0), constraint=positive), 2.0))
        with pyro.plate("data", len(rows)):
            pyro.sample("z", dist.Normal(a, b.exp()))

    def fit(self, **changes):
        return sweepvi.fit(self.model, (ROWS,), guide=self.guide, **{**HOW, **changes})


def elsewhere():
    """All that is global, and that a fit changes for itself."""
    modules = [torch.distributions.dirichlet, pyro.infer.trace_elbo, pyro.infer.traceenum_elbo, pyro.infer.util]
    parts = {
        (module.__name__, name): getattr(module, name, None)
        for module in modules
        for name in ("_Dirichlet", "warn_if_nan", "_SafeLog")
    }
    return {
        "generators": generator_states(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "validation": (pyro.distributions.is_validation_enabled(), torch.distributions.Distribution._validate_args),
        "pyro": pyro.settings.get(),
        "handlers": list(pyro.poutine.runtime._PYRO_STACK),
        "grad": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "functions": torch.overrides._len_torch_function_stack(),
        "dispatch": torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        "parts": parts,
        "dice": vars(pyro.infer.util.Dice)["compute_expectation"],
        "plates": vars(pyro.poutine.subsample_messenger.SubsampleMessenger)["_subsample"],
        "store": {name: value.tolist() for name, value in pyro.get_param_store().items()},
    }


@pytest.fixture
def unusual():
    """Everything global is other than torch's and Pyro's defaults, and other than what a fit sets it to."""
    before = torch.distributions.Distribution._validate_args, torch.are_deterministic_algorithms_enabled()
    torch.set_default_dtype(torch.float64)
    torch.distributions.Distribution.set_default_validate_args(False)
    pyro.enable_validation(False)
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    pyro.param("mine", torch.tensor([1.0, 2.0]), constraint=dist.constraints.positive)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.enable_validation(True)
    torch.distributions.Distribution.set_default_validate_args(before[0])
    torch.use_deterministic_algorithms(before[1])
    pyro.clear_param_store()


def state_of(net):
    named = [*net.named_parameters(), *net.named_buffers()]
    return {name: (id(value), value.dtype, value.requires_grad, value.grad, value.tolist()) for name, value in named}


def same(one, other):
    return torch.equal(one.losses, other.losses) and one.elbo == other.elbo


@pytest.fixture(autouse=True, scope="module")
def imported():
    """The first fit of a process imports what changes filters of warnings for good."""
    sweepvi.fit("eight_schools", **HOW)


@pytest.mark.usefixtures("unusual")
class TestNothingStaysChanged:
    def demand(self, program, run):
        before, net = elsewhere(), state_of(program.net)
        run()
        assert elsewhere() == before
        assert state_of(program.net) == net

    def test_after_a_fit(self):
        program = Program()
        self.demand(program, program.fit)

    @pytest.mark.parametrize("trouble", [KeyError("a bug"), KeyboardInterrupt()], ids=repr)
    def test_after_an_error_in_any_call_of_the_program(self, trouble):
        """In the trial run, while captured, while traced, while scored; and the next fit is what it would be alone."""
        whole = Program().fit()
        program = Program()
        program.fit()
        last = program.calls
        assert last > 8
        for at in range(1, last + 1, 2):
            program = Program(trouble, at)

            def run(program=program):
                # The user's own error where a fit is scored; where it cannot be captured, there is no fit; and what
                # cannot be scored at once is scored one by one.
                expected = (ConfigError, KeyError) if isinstance(trouble, KeyError) else KeyboardInterrupt
                with contextlib.suppress(expected):
                    assert torch.equal(program.fit().losses, whole.losses)

            self.demand(program, run)
            assert program.calls >= at
        assert same(program.fit(), whole)

    @pytest.mark.parametrize("place", ["stepped", "scoring", "chunk", "refill", "compaction"])
    def test_after_an_interrupt(self, place, monkeypatch):
        program = Program()

        class Stops(Observer):
            def stepped(self, step, loss):
                del step, loss
                if place == "stepped":
                    raise KeyboardInterrupt

            def scoring(self, done, total):
                del done, total
                if place == "scoring":
                    raise KeyboardInterrupt

        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        if place == "chunk":
            monkeypatch.setattr(lane_fits.Iterates, "add", interrupted)
        if place == "refill":
            monkeypatch.setattr(lane_fits, "most_lanes", lambda *args: 3)
            monkeypatch.setattr(lane_fits.LaneFits, "_enter", interrupted)
        if place == "compaction":
            monkeypatch.setattr(compaction, "TRACING", {"cpu": 0})
            monkeypatch.setattr(lane_fits, "moved", interrupted)

        settings = [{"steps": steps, "engine": {**HOW["engine"], "restarts": 1}} for steps in (10, 10, 10, 100)]

        def run():
            with pytest.raises(KeyboardInterrupt):
                sweepvi.fit_many(program.model, (ROWS,), guide=program.guide, settings=settings, progress=Stops())

        self.demand(program, run)


def alive():
    """Tensors, all objects that the garbage collector knows, and bytes of memory."""
    gc.collect()
    things = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in things)
    return tensors, len(things), pages * os.sysconf("SC_PAGE_SIZE")


def in_a_row(first, last):
    for seed in range(first, last):
        sweepvi.fit("eight_schools", engine=HOW["engine"], steps=10, seed=seed)


def test_fits_in_a_row_leave_nothing_behind():
    in_a_row(0, 5)
    grown = []
    for first in (5, 11):
        tensors, things, _ = alive()
        in_a_row(first, first + 6)
        after = alive()
        assert after[0] == tensors
        grown.append(after[1] - things)
    # What other code keeps once may fall into one of the two; a module whose source stays is 28 objects in every fit.
    assert min(grown) < 20


@pytest.mark.long
def test_a_hundred_fits_need_no_more_memory_than_twenty():
    in_a_row(0, 20)
    tensors, things, size = alive()
    in_a_row(20, 100)
    after = alive()
    assert after[0] == tensors
    assert after[1] < things + 100, "more than an object a fit"
    assert after[2] < size + 16 * 2**20
