"""Steps as CUDA graphs have the bits of the operations that they are made of."""

from __future__ import annotations

import pytest
import torch
from lane_parity import as_lanes, recipe

from sweepvi.engine.lanes import stepping

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPTIMIZERS = ("clipped_adam", "dct_adam", "schedule_free_adam", "sgd", "muon")


def fits(optimizer, dtype="float64"):
    engine = {"device": "cuda", "dtype": dtype, "steps": 100, "compile": "never"}
    return [recipe(optimizer=optimizer, engine={**engine, "seed": seed}) for seed in range(8)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bits_are_those_of_operations_one_by_one(optimizer, dtype, monkeypatch):
    made = []

    class Counted(stepping.Recording):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(stepping, "Recording", Counted)
        recorded = as_lanes(fits(optimizer, dtype))
    assert made
    monkeypatch.setattr(stepping, "recordable", lambda *given: False)
    plain = as_lanes(fits(optimizer, dtype))
    assert len(made) == 1
    for one, other in zip(recorded, plain, strict=True):
        assert torch.equal(one.losses, other.losses)
        assert all(torch.equal(value, other.snapshot.tensors[name]) for name, value in one.snapshot.tensors.items())


def test_lanes_that_are_given_other_numbers_are_heard():
    """A watch halves step sizes, and optimizers' numbers are held outside of the step."""
    engine = {"device": "cuda", "steps": 200, "compile": "never"}
    rates = [{"name": "clipped_adam", "lr": lr} for lr in (0.001, 0.01, 0.1)]
    together = as_lanes([recipe(optimizer=rate, engine=engine) for rate in rates])
    alone = [as_lanes([recipe(optimizer=rate, engine=engine)])[0] for rate in rates]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-10, atol=1e-10)


def test_machine_code_is_recorded_and_takes_the_same_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    engine = {"device": "cuda", "steps": 200, "restarts": 2}
    traced, compiled = (as_lanes([recipe(engine={**engine, "compile": how})])[0] for how in ("never", "always"))
    assert (traced.compiled_from, compiled.compiled_from, compiled.notes) == (None, 0, [])
    torch.testing.assert_close(compiled.losses, traced.losses, rtol=1e-9, atol=1e-9)
