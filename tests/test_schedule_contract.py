"""Every schedule against torch's class, and over lanes. A new schedule adds a row."""

from __future__ import annotations

import pytest
import torch

from sweepvi import registry

# name, settings, torch's scheduler of an optimizer
REFERENCES = [
    ("constant", {}, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0)),
    ("exponential", {"gamma": 0.997}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.997)),
]


@pytest.mark.parametrize(("name", "settings", "reference"), REFERENCES, ids=[row[0] for row in REFERENCES])
def test_equals_torch_for_a_thousand_steps(name, settings, reference):
    schedule = registry.build("scheduler", {"name": name, **settings})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = reference(optimizer)
    for step in range(1000):
        assert 0.3 * schedule.factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("name", "settings", "reference"), REFERENCES, ids=[row[0] for row in REFERENCES])
def test_broadcasts_over_lanes(name, settings, reference):
    del reference
    schedule = registry.build("scheduler", {"name": name, **settings})
    steps = torch.tensor([0, 1, 10, 999], dtype=torch.float64)
    factors = torch.as_tensor(schedule.factor(steps), dtype=torch.float64).expand(4)
    torch.testing.assert_close(
        factors, torch.tensor([float(schedule.factor(int(s))) for s in steps], dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_every_registered_schedule_has_a_reference():
    assert {row[0] for row in REFERENCES} == set(registry.names("scheduler"))
