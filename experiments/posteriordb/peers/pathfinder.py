"""Multi-path Pathfinder with importance resampling, by BlackJAX.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", 2022. Four paths, as in
Stan, from NumPyro's initial distribution; all else as BlackJAX has it, but for draws: there are 1,000 a path, not 200.
"""

from __future__ import annotations

import jax  # pyright: ignore[reportMissingImports]
from blackjax.vi import multipathfinder  # pyright: ignore[reportMissingImports]

from peers.found import DRAWS, Found
from peers.target import Target

PATHS = 4
POOL = 1_000
"""Draws a path, for its ELBOs and to resample from."""
ITERATIONS = 30
"""Of L-BFGS: BlackJAX's default."""


def fit(target: Target, seed: int) -> Found:
    """The evaluations are of the log density, at each step of the paths; gradients of the line search are not told."""
    first, second, third = jax.random.split(jax.random.PRNGKey(seed), 3)
    starts = jax.random.uniform(first, (PATHS, target.size), minval=-2.0, maxval=2.0)
    algorithm = multipathfinder.as_top_level_api(target.log_density)
    state, _ = jax.jit(lambda key, at: algorithm.init(key, at, POOL, maxiter=ITERATIONS))(second, starts)
    z = algorithm.sample(third, state, DRAWS)
    return Found(z, (state.logp - state.logq).ravel(), PATHS * POOL * (ITERATIONS + 2))
