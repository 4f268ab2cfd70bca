"""NumPyro as a worker, written by hand: ``jit(vmap(fori_loop))`` over fits. It runs in NumPyro's own environment."""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
from numpyro.infer import SVI, Trace_ELBO  # pyright: ignore[reportMissingImports]
from numpyro.optim import ClippedAdam  # pyright: ignore[reportMissingImports]

from .numpyro_models import Program, program
from .service import serve


class Steady:
    """Fits that go on from request to request."""

    def start(self, name: str, lanes: int, arrays: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Compile and set up.

        Args:
            name: of the problem.
            lanes: fits, which differ by their seeds.
            arrays: the problem's data.

        """
        made, data_key = program(name, arrays), jax.random.PRNGKey(1)
        # Tensors, and no constants of the program, so that lanes may differ in them.
        rates, clips = jnp.full(lanes, 0.01), jnp.full(lanes, 10.0)

        def begin(key: Any, rate: Any, clip: Any) -> Any:
            return svi_of(made, rate, clip).init(key, *made.batch(data_key))

        def go_on(first: Any, last: Any, state: Any, rate: Any, clip: Any) -> Any:
            svi = svi_of(made, rate, clip)
            # It learns what there is to fit; the values are not used, and so not computed.
            svi.init(data_key, *made.batch(data_key))

            def step(number: Any, carried: Any) -> Any:
                # All lanes share a step's minibatch: neither the key nor the step is a lane's own.
                return svi.update(carried[0], *made.batch(jax.random.fold_in(data_key, number)))

            return jax.lax.fori_loop(first, last, step, (state, jnp.zeros((), jnp.result_type(float))))

        keys = jax.random.split(jax.random.PRNGKey(0), lanes)
        self._state = jax.jit(jax.vmap(begin))(keys, rates, clips)
        self._hyper, self._done = (rates, clips), 0
        advance = jax.vmap(go_on, in_axes=(None, None, 0, 0, 0))
        self._advance = jax.jit(advance, donate_argnums=2).lower(0, 1, self._state, rates, clips).compile()
        self.advance(1)
        return {}

    def advance(self, steps: int) -> dict[str, Any]:
        """Take steps; how many is no constant of the program."""
        self._state, loss = self._advance(self._done, self._done + steps, self._state, *self._hyper)
        jax.block_until_ready(self._state)
        self._done += steps
        return {"steps": steps, "lanes": len(self._hyper[0]), "loss": float(loss.mean())}


def svi_of(made: Program, rate: Any, clip: Any) -> Any:
    """What takes steps under these numbers."""
    return SVI(made.model, made.guide(), ClippedAdam(rate, clip_norm=clip), Trace_ELBO())


if __name__ == "__main__":
    steady = Steady()
    serve({"start": steady.start, "advance": steady.advance})
