"""``HorovodOptimizer``: equal on all ranks, and equal to one process that averages gradients itself."""

from __future__ import annotations

import importlib.util
import sys

import pyro
import pytest
import torch
from rank_runs import HERE, run

import sweepvi.optim
from sweepvi.errors import ConfigError

INSTALLED = importlib.util.find_spec("horovod") is not None


@pytest.mark.skipif(not INSTALLED, reason="needs horovod")
def test_it_averages_first_and_steps_then(tmp_path):
    [(status, out, errors)] = run(str(HERE / "horovod_optimizer_ranks.py"), str(tmp_path), by="horovod")
    assert status == 0, out + errors
    first, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.keys() == other.keys()
    for name in first:
        assert torch.equal(first[name], other[name]), name
    for name in ("clipped", "schedule", "ours"):
        torch.testing.assert_close(first[name], first[f"{name} by one"], rtol=1e-6, atol=1e-6)


def test_without_horovod_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    with pytest.raises(ConfigError, match=r"horovod\.torch: cannot be imported .*; docs/distributed\.md says how"):
        sweepvi.optim.HorovodOptimizer(pyro.optim.Adam({"lr": 0.1}))
