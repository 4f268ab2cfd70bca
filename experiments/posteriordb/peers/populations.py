"""Prey and predators over time, by the solver of sweepvi's ``lotka_volterra``, as a scan."""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

STEPS = 1
"""Steps of the solver between two times."""

PREY = (0.0792036964311957, 0.353172906049774, -0.0420650803577195)
PREDATOR = (0.209515106613362, -0.143851773179818)
"""Shares of a step, of which the rest follows by symmetry (Blanes & Moan, "Practical Symplectic Partitioned
Runge–Kutta and Runge–Kutta–Nyström Methods", 2002, S6)."""


def populations(theta: Any, log_z: Any, waits: Any) -> Any:
    """Logarithms of the populations after each wait, shape [times, 2], from ``log_z`` of shape [2]."""
    birth, eaten, death, eating = theta
    units = jnp.log(jnp.stack([eating, eaten]))
    middle = 0.5 - sum(PREDATOR)
    prey = (*PREY, 1 - 2 * sum(PREY), *reversed(PREY))
    predator = (*PREDATOR, middle, middle, *reversed(PREDATOR), 0.0)

    def forward(state: Any, wait: Any) -> tuple[Any, Any]:
        u, v = state
        for _ in range(STEPS):
            for of_prey, of_predator in zip(prey, predator, strict=True):
                u = u + (birth - jnp.exp(v)) * of_prey * wait / STEPS
                v = v + (jnp.exp(u) - death) * of_predator * wait / STEPS
        state = jnp.stack([u, v])
        return state, state

    _, seen = jax.lax.scan(forward, log_z + units, waits)
    return seen - units
