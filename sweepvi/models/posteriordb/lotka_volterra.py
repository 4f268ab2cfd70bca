"""``lotka_volterra``: hares and lynxes, twenty years of pelts.

Carpenter, "Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan", 2018: theta[1], theta[3] ~ N(1, 0.5)
and theta[2], theta[4] ~ N(0.05, 0.05), all positive; sigma[k] ~ LogNormal(−1, 1); z_init[k] ~ LogNormal(log 10, 1);
du/dt = (theta[1] − theta[2]·v)·u, dv/dt = (−theta[3] + theta[4]·u)·v from z_init at time 0; and pelts y_init and y are
LogNormal around log z with sigma.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

STEPS = 1
"""Steps of the solver between two times.

With posteriordb's data and reference draws, log z is off by at most 1.1e-3 (1e-4 on average; sigma is 0.25), which
moves no posterior mean by more than 7e-4 of its standard deviation; two steps would halve the speed for 5e-5.
"""

PREY = (0.0792036964311957, 0.353172906049774, -0.0420650803577195)
PREDATOR = (0.209515106613362, -0.143851773179818, 0.5 - 0.209515106613362 + 0.143851773179818)
STAGES = tuple(
    zip((*PREY, 1 - 2 * sum(PREY), *reversed(PREY)), (*PREDATOR, *reversed(PREDATOR), 0.0), strict=True),
)
"""Shares of a step that prey and predator move in turn (Blanes & Moan, "Practical Symplectic Partitioned Runge–Kutta
and Runge–Kutta–Nyström Methods", 2002, S6)."""


def arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`model` takes, of posteriordb's data."""
    y_init, y = (torch.tensor(data[name], dtype=torch.float64) for name in ("y_init", "y"))
    return {"y_init": y_init, "y": y, "waits": tuple(float(b - a) for a, b in pairwise([0, *data["ts"]]))}


def model(y_init: Tensor, y: Tensor, waits: Sequence[float]) -> None:
    """Pelts are log-normal around the populations.

    Args:
        y_init: pelts of prey and predator at time 0, shape [2].
        y: and afterwards, shape [times, 2].
        waits: how long after the time before each of these was, ``times`` numbers.

    """
    theta = pyro.sample("theta", dist.ImproperUniform(constraints.independent(constraints.positive, 1), (), (4,)))
    prior = dist.Normal(y.new_tensor([1.0, 0.05, 1.0, 0.05]), y.new_tensor([0.5, 0.05, 0.5, 0.05]))
    pyro.factor("theta_prior", prior.log_prob(theta).sum(-1))
    sigma = pyro.sample("sigma", dist.LogNormal(y.new_full((2,), -1.0), 1.0).to_event(1))
    z_init = pyro.sample("z_init", dist.LogNormal(y.new_full((2,), math.log(10)), 1.0).to_event(1))
    log_z = populations(theta, z_init.log(), waits)
    pyro.sample("y_init", dist.LogNormal(z_init.log(), sigma).to_event(1), obs=y_init)
    pyro.sample("y", dist.LogNormal(log_z, sigma.unsqueeze(-2)).to_event(2), obs=y)


def populations(theta: Tensor, log_z: Tensor, waits: Sequence[float]) -> Tensor:
    """Logarithms of the populations after each wait, shape [..., times, 2], from ``log_z`` of shape [..., 2].

    In the units in which theta[2] and theta[4] are 1, d log u/dt = theta[1] − v and d log v/dt = u − theta[3]: each
    changes at a rate that depends on the other alone. So one can be moved exactly while the other is held, in turn; a
    composition of such moves is a solver of order four, at one exponential a move.
    """
    birth, eaten, death, eating = theta.unbind(-1)
    units = torch.stack([eating, eaten], dim=-1).log()
    u, v = (log_z + units).unbind(-1)
    # What does not depend on the populations, once for all steps of a length: it halves the program's multiplications.
    stages = {wait: list(_stages(birth, death, wait / STEPS)) for wait in dict.fromkeys(waits)}
    seen = []
    for wait in waits:
        for prey, born, predator, died in stages[wait] * STEPS:
            u = torch.sub(u + born, v.exp(), alpha=prey)
            if predator:
                v = torch.add(v - died, u.exp(), alpha=predator)
        seen.append(torch.stack([u, v], dim=-1))
    return torch.stack(seen, dim=-2) - units.unsqueeze(-2)


def _stages(birth: Tensor, death: Tensor, step: float) -> Iterator[tuple[float, Tensor, float, Tensor]]:
    """How long each population moves, and by how much its own rate alone moves it."""
    for prey, predator in STAGES:
        yield prey * step, birth * (prey * step), predator * step, death * (predator * step)
