"""Multi-path Pathfinder with importance resampling, by BlackJAX.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", 2022. Four paths, as in
Stan, from NumPyro's initial distribution; all else as BlackJAX has it, but that there are 2,500 draws a path to
resample from, not 200.
"""

from __future__ import annotations

import jax  # pyright: ignore[reportMissingImports]
from blackjax.vi import multipathfinder  # pyright: ignore[reportMissingImports]
from blackjax.vi.pathfinder import sample  # pyright: ignore[reportMissingImports]

from peers.found import DRAWS, Found
from peers.target import Target

PATHS = 4
POOL = DRAWS // PATHS
"""Draws a path to resample from."""
ELBO = 200
"""Draws of an ELBO: BlackJAX's default."""
ITERATIONS = 30
"""Of L-BFGS: BlackJAX's default."""


def fit(target: Target, seed: int) -> Found:
    """The evaluations are of the log density, at each step of the paths; gradients of the line search are not told."""
    first, second, third, last = jax.random.split(jax.random.PRNGKey(seed), 4)
    starts = jax.random.uniform(first, (PATHS, target.size), minval=-2.0, maxval=2.0)
    algorithm = multipathfinder.as_top_level_api(target.log_density)

    @jax.jit
    def approximate() -> multipathfinder.MultipathfinderState:
        state, _ = algorithm.init(second, starts, ELBO, maxiter=ITERATIONS)
        pool, logq = jax.vmap(lambda key, path: sample(key, path, POOL))(
            jax.random.split(third, PATHS), state.path_states
        )
        return state._replace(samples=pool, logp=jax.vmap(jax.vmap(target.log_density))(pool), logq=logq)

    state = approximate()
    z = algorithm.sample(last, state, DRAWS)
    return Found(z, (state.logp - state.logq).ravel(), PATHS * (ELBO * (ITERATIONS + 1) + POOL))
