"""One row: gradients of an estimator at fixed parameters, as a fit computes them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pyro
import torch
from torch import Tensor, nn

from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.environment import device_of
from sweepvi.engine.score import traces
from sweepvi.estimators import Estimator
from sweepvi.estimators.baselines import OWN_PARAMETERS
from sweepvi.estimators.sites import latent_sites
from sweepvi.loading import described
from sweepvi.partition.kinds import kind_of, network_weights
from sweepvi.private import constraint_of
from sweepvi.probing.candidates import Plan, label_of, node_of
from sweepvi.probing.moments import Moments
from sweepvi.probing.place import Place, opened
from sweepvi.probing.row import OK, Row
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe

BASELINE_LR = 0.01
"""Step size of Adam for networks that predict baselines, while they warm up."""

SEED_STEP = 1_000_003
"""From the fit's seed to the one that gradients are measured under: every row meets the same noise, and baselines
have settled on other noise."""


class StoppedError(Exception):
    """The user has asked to stop in the middle of a row."""


def measured(recipe: Recipe, estimator: Estimator, place: Place, plan: Plan, drawn: Callable[[], None]) -> Row:
    """Measure one row.

    Args:
        recipe: the fit; its estimator is replaced.
        estimator: what is measured.
        place: at which parameters.
        plan: how often.
        drawn: called after each gradient; a :class:`StoppedError` of it is passed on.

    Returns:
        The row; gradients that are not finite, or an exception in computing one, are its status.

    """
    row = Row(
        estimator=label_of(estimator),
        particles=estimator.num_particles,
        node=node_of(estimator),
        objective=estimator.minimised,
        unbiased=estimator.unbiased,
        status=OK,
    )
    with opened(replace(recipe, estimator=estimator), place) as engine:
        try:
            parts = _Parts(engine)
            _warm_up(engine, parts, plan.warmup, drawn)
            pyro.set_rng_seed((recipe.settings.seed + SEED_STEP) % 2**32)
            return _drawn(row, engine, parts, plan.draws, drawn)
        except StoppedError:
            raise
        except Exception as error:
            return replace(row, status=f"failed: {described(error)}")


def _warm_up(engine: EagerEngine, parts: _Parts, calls: int, drawn: Callable[[], None]) -> None:
    """Let averages settle, and train networks that predict baselines; the fit's own parameters stay."""
    optimizer: torch.optim.Adam | None = None
    for _ in range(calls):
        try:
            _, gradients = engine.gradients()
        except NonFiniteError:
            gradients = {}
        drawn()
        of_baselines = parts.of_baselines(gradients)
        if not of_baselines:
            continue
        trained = [engine.optimization.live[name] for name in of_baselines]
        # Such networks are there from the first call on, or never.
        optimizer = optimizer or torch.optim.Adam(trained, lr=BASELINE_LR)
        for param, gradient in zip(trained, of_baselines.values(), strict=True):
            param.grad = gradient
        optimizer.step()
        engine.optimization.clear_gradients()


def _drawn(row: Row, engine: EagerEngine, parts: _Parts, draws: int, drawn: Callable[[], None]) -> Row:
    moments, seconds, failures = Moments(), [], []
    for _ in range(draws):
        began = _now(engine)
        try:
            _, gradients = engine.gradients()
        except NonFiniteError as error:
            failures.append(error)
        else:
            seconds.append(_now(engine) - began)
            moments.add(parts.of_the_fit(gradients))
        drawn()
    row = replace(row, nonfinite=len(failures), seconds=statistics.median(seconds) if seconds else None)
    if failures:
        return replace(row, status=f"{len(failures)} of {draws} gradients are not finite: {failures[0]}")
    return replace(row, total=moments.total(), tensors=moments.tensors(), mean=moments.mean())


class _Parts:
    """Tells gradients of what the fit optimizes from those of baselines' networks, and of frozen parameters."""

    def __init__(self, engine: EagerEngine) -> None:
        self._engine = engine
        sites = latent_sites(*traces(engine.programs, engine.problem))
        networks = [site.baseline.get("nn_baseline") for site in sites.values()]
        modules = [network for network in networks if isinstance(network, nn.Module)]
        self._guides_own = {id(param) for network in modules for param in network.parameters()}
        self._weights = network_weights(reachable_modules(engine.programs).values())
        self._optimized: dict[str, bool] = {}

    def of_baselines(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients of networks that predict baselines."""
        return {name: gradient for name, gradient in gradients.items() if self._is_of_baseline(name)}

    def of_the_fit(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients that are measured."""
        return {name: gradient for name, gradient in gradients.items() if self._is_optimized(name)}

    def _is_of_baseline(self, name: str) -> bool:
        return name.startswith(OWN_PARAMETERS) or id(self._engine.optimization.live[name]) in self._guides_own

    def _is_optimized(self, name: str) -> bool:
        if name not in self._optimized:
            recipe, param = self._engine.recipe, self._engine.optimization.live[name]
            kind = kind_of(name, constraint_of(name), id(param) in self._weights)
            label = recipe.partition.assign({name: kind})[name]
            self._optimized[name] = not (self._is_of_baseline(name) or recipe.groups[label].frozen)
        return self._optimized[name]


def _now(engine: EagerEngine) -> float:
    """The clock, once all that was asked of the device is done."""
    device = device_of(engine.recipe.settings)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
