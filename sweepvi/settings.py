"""How a fit is run: the ``engine`` group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sweepvi.keys import Key, Keyed


@dataclass(frozen=True)
class Settings(Keyed):
    """Eager engine: Pyro's own mechanics, one optimizer over all parameters."""

    steps: Annotated[int, Key("updates of the parameters", ge=1, le=10**9)] = 2000
    seed: Annotated[int, Key("fixes every random draw", ge=0, lt=2**32)] = 0
    dtype: Annotated[Literal["float32", "float64"], Key("floating-point type of parameters and data")] = "float32"
    device: Annotated[str, Key("cpu, cuda or cuda:N", pattern=r"cpu|cuda(:\d{1,3})?")] = "cpu"
    deterministic: Annotated[bool, Key("use torch's deterministic algorithms, so that a re-run gives equal bits")] = (
        True
    )
    on_nonfinite: Annotated[
        Literal["stop", "skip", "raise"],
        Key("at a NaN or infinite loss or gradient: end as diverged, leave that update out, or raise"),
    ] = "stop"
    score_draws: Annotated[int, Key("fresh draws for the reported ELBO; 0 reports none", ge=0)] = 1000
    posterior_draws: Annotated[
        int, Key("draws for the table of the posterior and the verdict; 0: none; eager: at most score_draws", ge=0)
    ] = 10_000
    score_minibatches: Annotated[
        bool, Key("score on minibatches of plates, scaled up, instead of on all of the data")
    ] = False
    log_every: Annotated[int, Key("steps between lines of progress in the log", ge=1)] = 500
    checkpoint_every: Annotated[int, Key("steps between checkpoints; 0 writes one, at the end", ge=0)] = 500


@dataclass(frozen=True)
class LaneSettings(Settings):
    """Lanes: restarts, and fits that differ in numbers only, run as one program; an error where that cannot be."""

    restarts: Annotated[
        int | None, Key("seeds that are fitted at once, the best is the result; null: 4, or 1 for large models", ge=1)
    ] = None
    noise: Annotated[
        Literal["fresh", "fixed", "antithetic", "sobol"],
        Key("draws of a step: independent; the same in all; mirrored in every second; quasi-random over steps"),
    ] = "fresh"
    data_seed: Annotated[int, Key("fixes the order of minibatches", ge=0, lt=2**32)] = 0
    compile: Annotated[
        Literal["auto", "never", "always"],
        Key("steps as machine code: in long fits, once the background has made it; never; or from the first step"),
    ] = "auto"
    compiled_from: Annotated[
        int | None, Key("step from which machine code is used, as a saved run has it; null: as compile says", ge=0)
    ] = None
    threads: Annotated[
        int | None, Key("threads of torch; null: one, or as many as there are for steps of millions of numbers", ge=1)
    ] = None
    memory: Annotated[float | None, Key("GiB that lanes may take together; null: half of what is free", gt=0)] = None


@dataclass(frozen=True)
class AutoSettings(LaneSettings):
    """Lanes where the fit can run as such and is long enough to gain by it, the eager engine elsewhere."""
