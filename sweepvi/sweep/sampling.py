"""Samplers by name: Optuna's, and a quasi-random sequence that needs no memory."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

PRESCRIBED = ("random", "qmc", "grid")
"""Samplers that do not look at results: a trial's settings depend on its number alone."""


def sampler_of(name: str, seed: int, begun: int, entropy: str = "") -> BaseSampler:
    """A sampler.

    Args:
        name: as in the settings.
        seed: of the study.
        begun: trials that there are already. Optuna keeps no generator's state: a sampler that looks at results goes on
            with other random numbers than it began with, or it would propose the same again.
        entropy: other random numbers for others who propose beside it.

    """
    begun_anew = begun == 0 and not entropy
    own = seed if begun_anew else zlib.crc32(f"{seed}/{begun}{'/' if entropy else ''}{entropy}".encode())
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(multivariate=True, group=True, constant_liar=True, seed=own),
        "gp": lambda: GPSampler(seed=own),
        "cmaes": lambda: CmaEsSampler(seed=own, warn_independent_sampling=False),
        "nsga2": lambda: NSGAIISampler(seed=own),
        "random": lambda: RandomSampler(seed=seed),
        "qmc": lambda: SobolSampler(seed),
        "grid": lambda: RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        # Options that Optuna may change one day; its version is pinned.
        warnings.simplefilter("ignore")
        return makers[name]()


DIMENSIONS = 256
"""Of the quasi-random sequence: parameters beyond so many repeat the first ones' coordinates."""


class SobolSampler(BaseSampler):
    """A scrambled Sobol' sequence over all parameters: trial number n has its point n.

    Owen, "Randomly Permuted (t,m,s)-Nets and (t,s)-Sequences", 1995. Parameters have coordinates in the order in which
    they are first asked for.
    """

    def __init__(self, seed: int) -> None:
        self._places: dict[str, int] = {}
        self._seed = seed
        self._points = np.empty((0, DIMENSIONS))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: every parameter is looked up when it is asked for."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the trial's point, in its distribution."""
        place = self._places.setdefault(param_name, len(self._places)) % DIMENSIONS
        return at_quantile(param_distribution, float(self._point(trial.number)[place]))

    def _point(self, number: int) -> np.ndarray:
        if number >= len(self._points):
            from scipy.stats import qmc

            # Powers of two keep the sequence balanced.
            count = max(64, 1 << (number + 1).bit_length())
            self._points = qmc.Sobol(DIMENSIONS, scramble=True, rng=self._seed).random(count)
        return self._points[number]


def at_quantile(distribution: BaseDistribution, share: float) -> Any:
    """The value of a distribution below which a share of it lies, in [0, 1)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution) and distribution.log:
        edges = np.log([low - 0.5, high + 0.5])
        return int(np.clip(round(float(np.exp(edges[0] + share * (edges[1] - edges[0])))), low, high))
    if distribution.log:
        return float(np.clip(np.exp(np.log(low) + share * (np.log(high) - np.log(low))), low, high))
    if step is None:
        return low + share * (high - low)
    found = low + step * int(share * (int((high - low) / step + 1e-9) + 1))
    return int(found) if isinstance(distribution, IntDistribution) else float(found)


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """A parameter's value in a trial."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
