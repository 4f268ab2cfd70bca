"""Stan's ADVI with its search for a step size, written by hand.

Kucukelbir, Tran, Ranganath, Gelman & Blei, "Automatic Differentiation Variational Inference", 2017, with the numbers of
Stan: independent normals, one draw a gradient, a step size of {100, 10, 1, 0.1, 0.01} by 50 steps each, at most 10,000
steps, the end where the ELBO's relative change is below 0.01.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, NamedTuple

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np

from peers.found import Found, gaussian
from peers.target import Target

SIZES = (100.0, 10.0, 1.0, 0.1, 0.01)
TRIAL = 50
"""Steps by which a size is judged."""
STEPS = 10_000
EVERY = 100
"""Steps from ELBO to ELBO, which is by as many draws."""
TOLERANCE = 0.01
REMEMBERED = 10
"""Relative changes of the ELBO, whose mean or median is held to the tolerance."""


class State(NamedTuple):
    """Where the ascent is."""

    at: Any
    """Means, then log standard deviations."""
    square: Any
    """Decaying average of squared gradients."""
    number: Any
    """Steps taken."""


class Ascent:
    """Ascent of a target's ELBO, compiled once."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target, self._key = target, jax.random.PRNGKey(seed)
        at = jnp.concatenate([target.start, jnp.zeros(target.size)])
        self.start = State(at, jnp.zeros_like(at), jnp.zeros((), int))
        self.advance = jax.jit(self._advance)
        self.elbo = jax.jit(partial(self._elbo, draws=EVERY))

    def _elbo(self, key: Any, at: Any, draws: int) -> Any:
        mean, log_sd = jnp.split(at, 2)
        noise = jax.random.normal(key, (draws, len(mean)))
        found = jax.vmap(self._target.log_density)(mean + jnp.exp(log_sd) * noise)
        entropy = log_sd.sum() + 0.5 * len(mean) * (1 + jnp.log(2 * jnp.pi))
        return jnp.nanmean(jnp.where(jnp.isfinite(found), found, jnp.nan)) + entropy

    def _advance(self, state: State, size: Any, steps: Any) -> State:
        return jax.lax.fori_loop(0, steps, lambda _, state: self._step(state, size), state)

    def _step(self, state: State, size: Any) -> State:
        number = state.number + 1
        slope = jax.grad(partial(self._elbo, draws=1), argnums=1)(jax.random.fold_in(self._key, number), state.at)
        square = jnp.where(number == 1, slope**2, 0.1 * slope**2 + 0.9 * state.square)
        at = state.at + size / jnp.sqrt(number) / (1 + jnp.sqrt(square)) * slope
        # Where the gradient is not finite, the draw is left out.
        usable = jnp.isfinite(slope).all()
        return State(jnp.where(usable, at, state.at), jnp.where(usable, square, state.square), number)


def fit(target: Target, seed: int) -> Found:
    """Search for a step size, then go on with it from the start."""
    ascent, keys = Ascent(target, seed), map(jax.random.PRNGKey, range(1000 * (seed + 1), 1000 * (seed + 2)))
    size, tried = best_size(ascent, keys)
    state, before, changes = ascent.start, -np.inf, deque(maxlen=REMEMBERED)
    while state.number < STEPS:
        state = ascent.advance(state, size, EVERY)
        elbo = float(ascent.elbo(next(keys), state.at))
        changes.append(abs((elbo - before) / elbo))
        before = elbo
        if min(np.mean(changes), np.median(changes)) < TOLERANCE:
            break
    loc, log_sd = jnp.split(state.at, 2)
    note = f"step size {size}, {int(state.number):,} steps"
    return gaussian(target, seed, loc, jnp.exp(log_sd), int(state.number) + TRIAL * tried, note)


def best_size(ascent: Ascent, keys: Any) -> tuple[float, int]:
    """The step size before the first that is worse, once one is better than the start; and how many were tried.

    Raises:
        ArithmeticError: if none is better than the start, as Stan has it.

    """
    first = float(ascent.elbo(next(keys), ascent.start.at))
    found: dict[float, float] = {}
    for size in SIZES:
        best = max(found.values(), default=-np.inf)
        found[size] = float(ascent.elbo(next(keys), ascent.advance(ascent.start, size, TRIAL).at))
        if found[size] < best and best > first:
            break
    # What is not a number is never above the start.
    better = {size: elbo for size, elbo in found.items() if elbo > first}
    if not better:
        raise ArithmeticError("all proposed step sizes failed")
    return max(better, key=lambda size: better[size]), len(found)
