"""Python's way in: ``sweepvi.fit``. The command line goes through the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pyro.optim import PyroOptim

from sweepvi import engine as engines
from sweepvi import preset as presets
from sweepvi import rank_limits, recipe, registry
from sweepvi.distributed import Distributed
from sweepvi.engine import Observer
from sweepvi.errors import ConfigError, Problem, collected, raise_if, unknown
from sweepvi.estimators import Estimator
from sweepvi.geometry import Geometry
from sweepvi.guides.custom import GivenGuide
from sweepvi.guides.guide import Guide, Program
from sweepvi.keys import Keyed
from sweepvi.loading import path_of
from sweepvi.optim import Minimizer, Rule
from sweepvi.partition import Partition
from sweepvi.problem import Model, given_problem
from sweepvi.programs import FittedProgram
from sweepvi.progress import observer_for
from sweepvi.provenance import provenance
from sweepvi.recipe import OptimizerFactory, Recipe
from sweepvi.registry import GIVEN
from sweepvi.results import FitResult, from_outcome
from sweepvi.runs import raise_if_demanded, run
from sweepvi.schedule import Schedule
from sweepvi.settings import Settings
from sweepvi.stopping import Stop

Component: TypeAlias = str | Mapping[str, Any] | Keyed
"""A component as its name, as ``{"name": …, key: value}``, or as an object."""


def fit(
    model: Program | Component,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    geometry: Component | None = None,
    guide: Component | Program | None = None,
    estimator: Component | None = None,
    optimizer: Component | OptimizerFactory | None = None,
    scheduler: Component | None = None,
    partition: Component | None = None,
    stop: Component | None = None,
    engine: str | Mapping[str, Any] = "auto",
    distributed: Component | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool | Observer = False,
    **settings: Any,
) -> FitResult:
    """Fit a Pyro model by stochastic variational inference.

    Args:
        model: a Pyro model, or a shipped one by name (``"radon"``). Networks in it are left as they are: the result's
            ``model`` and ``guide`` carry the fitted values.
        args: positional arguments of model and guide. Floating-point tensors are cast to ``dtype``.
        kwargs: keyword arguments of model and guide.
        preset: ``"auto"`` chooses everything that is not said here, by the rule in docs/presets.md; so does None where
            nothing of the following is said, but for the engine, nor ``steps``, ``restarts`` or ``noise``, nor the
            eager engine. ``"laplace_flow"`` and others are ready settings. ``"none"`` takes the defaults below.
        geometry: coordinates in which the model is fitted; ``"none"`` unless said.
        guide: ``"auto_normal"`` unless said; a name, a mapping or a component; or a Pyro guide, an autoguide, or an
            autoguide's class.
        estimator: ``"trace"`` unless said; a name, a mapping or a component, like the next four.
        optimizer: ``"clipped_adam"``; also a function that makes a ``torch.optim.Optimizer`` of parameter groups.
        scheduler: learning-rate schedule; ``"constant"``.
        partition: which parameters are optimized together; ``"single"``.
        stop: when the fit is done: after ``steps``, or ``"auto"``: earlier, when it gains no more.
        engine: what runs the fit: ``"lanes"``, ``"eager"``, or ``"auto"``: lanes where they can run it and pay.
        distributed: on which processes it runs: ``"none"``, or ``"gloo"`` and others, in a script that torchrun starts;
            every process gets a result, and only that of rank 0 is scored and saved.
        folder: where to save the run, checkpoints included; None saves nothing.
        resume: continue from the checkpoint in ``folder``, if there is one.
        progress: show a progress bar, or tell an observer.
        **settings: keys of the ``engine`` group: ``steps``, ``seed``, ``restarts``, ``dtype``, ``device``, ….

    Returns:
        The result; a numerical failure is a status of it.

    Raises:
        ConfigError: everything wrong with the arguments, or the model's own error on its data.
        CheckpointError: if the checkpoint to resume from is damaged or of another configuration.
        DivergedError: under ``on_nonfinite="raise"``.

    """
    groups = {
        "geometry": geometry,
        "guide": guide,
        "estimator": estimator,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "partition": partition,
        "stop": stop,
    }
    chosen = {group: value for group, value in groups.items() if value is not None}
    where = None if folder is None else Path(folder)
    parts = {**DEFAULTS, **chosen, "engine": _engine_node(engine, settings)}
    if distributed is not None:
        parts["distributed"] = distributed
    config, given, problems = specified(model, args, kwargs, **parts)
    raise_if(problems + _unknown_preset(preset) + recipe.check(config, [*given, *(set(registry.GROUPS) - set(config))]))
    keys = [f"engine.{key}" for key in config["engine"]]
    left = presets.said(config, DEFAULTS, [*chosen, *keys])
    if rank_limits.on_ranks(config) and preset in (None, "auto"):
        raise_if([Problem.of("preset", preset, "runs on one process; name another")] if preset else [])
        preset = "none"
    if preset in presets.PORTFOLIO:
        config = presets.under(config, presets.PORTFOLIO[preset], left)
    elif preset == "auto" or (preset is None and presets.untuned(left)):
        return presets.climb(presets.ladder(config, given, left), where, lambda made: _observer(progress, made), resume)
    made = recipe.build(config, given)
    return run(made, where, _observer(progress, made), resume)


def _observer(progress: bool | Observer, made: Recipe) -> Observer:
    return progress if isinstance(progress, Observer) else observer_for(progress, made.settings.log_every)


def _unknown_preset(preset: Any) -> list[Problem]:
    known = ("auto", "none", *presets.PORTFOLIO)
    return [] if preset in (None, *known) else [Problem.of("preset", preset, unknown("preset", str(preset), known))]


def fit_many(
    model: Program | Component,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    settings: Sequence[Mapping[str, Any]],
    progress: bool | Observer = False,
    **common: Any,
) -> list[FitResult]:
    """Fit a model under many settings; those that differ in numbers, seeds or optimizers only run as one program.

    Args:
        model: as for :func:`fit`, like the next two.
        args: positional arguments of model and guide.
        kwargs: keyword arguments of model and guide.
        settings: for each fit, keywords of :func:`fit`, such as ``{"optimizer": {"name": "adam", "lr": 0.1}}``.
        progress: show a progress bar, or tell an observer.
        **common: keywords of :func:`fit` for all fits, where their settings say nothing else. For several settings,
            ``posterior_draws`` is 0 unless they say more: no table of the posterior, and no k-hat in the verdict.

    Returns:
        A result for each of the settings, in their order; ``fit_many(…, settings=[s])[0]`` is ``fit(…, **s)``.

    Raises:
        ConfigError: everything wrong with the arguments, of all settings, or the model's own error on its data.
        DivergedError: a fit under ``on_nonfinite="raise"`` has diverged; the first of them.

    """
    made = _recipes(model, args, kwargs, [{**common, **each} for each in settings])
    if not made:
        return []
    observer = progress if isinstance(progress, Observer) else observer_for(progress, made[0].settings.log_every)
    outcomes = engines.fit_many(made, observer)
    known = provenance()
    results = [from_outcome(one, outcome, known) for one, outcome in zip(made, outcomes, strict=True)]
    for one, result in zip(made, results, strict=True):
        raise_if_demanded(one, result)
    return results


def _recipes(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, settings: Sequence[Mapping[str, Any]]
) -> list[Recipe]:
    """The recipe of each of the settings; ``ConfigError`` with the problems of all, each with its place."""
    found: list[Recipe] = []
    problems: list[Problem] = []
    for place, each in enumerate(settings):
        unusable = [key for key in ("folder", "resume", "progress") if key in each]
        problems += [Problem(f"settings[{place}].{key}", "is for one fit alone, by sweepvi.fit") for key in unusable]
        components = {group: each.get(group, default) for group, default in DEFAULTS.items()}
        own = {k: v for k, v in each.items() if k not in DEFAULTS and k not in unusable}
        engine = each.get("engine", DEFAULTS["engine"])
        if len(settings) > 1 and not (isinstance(engine, Mapping) and "posterior_draws" in engine):
            own = {"posterior_draws": 0, **own}
        components["engine"] = _engine_node(engine, own)
        try:
            found.append(recipe_from(model, args, kwargs, **components))
        except ConfigError as error:
            problems += [replace(problem, key=f"settings[{place}].{problem.key}") for problem in error.problems]
    raise_if(problems)
    return found


DEFAULTS: dict[str, Any] = {
    "geometry": "none",
    "guide": "auto_normal",
    "estimator": "trace",
    "optimizer": "clipped_adam",
    "scheduler": "constant",
    "partition": "single",
    "stop": "steps",
    "engine": "auto",
    "distributed": "none",
}
"""What :func:`fit` takes under ``preset="none"`` where nothing is said, as conf/config.yaml has it."""


def _engine_node(engine: Any, settings: Mapping[str, Any]) -> Any:
    """The engine's specification, with the settings that were given by themselves."""
    if isinstance(engine, str):
        return {"name": engine, **settings}
    return {**engine, **settings} if isinstance(engine, Mapping) else engine


def recipe_from(
    model: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **components: Any
) -> Recipe:
    """The recipe of :func:`fit`'s arguments; ``components`` holds specifications of groups; others are as there."""
    config, given, problems = specified(model, args, kwargs, **components)
    raise_if(problems + recipe.check(config, [*given, *(set(registry.GROUPS) - set(config))]))
    return recipe.build_checked(config, given)


def specified(
    model: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **components: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], list[Problem]]:
    """What :func:`fit`'s arguments say: nodes by group, objects that stand for a group's component, and problems."""
    config: dict[str, dict[str, Any]] = {}
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for group in registry.GROUPS:
        specification = model if group == "model" else components.get(group, DEFAULTS[group])
        node, object_ = _specified(group, specification)
        if node is None:
            kind = f"{type(specification).__module__}.{type(specification).__name__}"
            expected = _SPECIFICATIONS.get(group, "a name, a mapping or a component of sweepvi's")
            problems.append(Problem(group, f"must be {expected}, not a {kind}"))
            continue
        config[group] = node
        if object_ is not None:
            given[group] = object_
    [problem], wrong = collected(lambda: given_problem(model, args, kwargs))
    problems += wrong
    if "model" in given:
        given["model"] = problem
    elif not wrong and (len(args) or kwargs):
        problems.append(Problem("args", "a shipped model brings its own data; args and kwargs are for your own model"))
    return config, given, problems


def _specified(group: str, specification: Any) -> tuple[dict[str, Any] | None, Any]:
    """A group's node, and the object that stands for its component if it is given as one."""
    if isinstance(specification, str):
        return {"name": specification}, None
    if isinstance(specification, Mapping):
        return dict(specification), None
    if isinstance(specification, Keyed) and isinstance(specification, _BASES[group]):
        name = registry.name_of(group, specification)
        if name is not None:
            return registry.described(name, specification), None
        return registry.described(GIVEN, specification) | {"object": path_of(specification)}, specification
    if group in ("model", "guide", "optimizer") and callable(specification) and not _misplaced(specification):
        object_ = GivenGuide(specification) if group == "guide" else specification
        return {"name": GIVEN, "object": path_of(specification)}, object_
    return None, None


def _misplaced(thing: Any) -> bool:
    """Whether a callable is of a kind that stands for no component."""
    return isinstance(thing, PyroOptim | torch.optim.Optimizer | FittedProgram)


_SPECIFICATIONS = {
    "model": "a shipped model's name, a Pyro model, or a class of one (not one that is fitted)",
    "guide": "a name, a mapping, a Pyro guide, or an autoguide's class (not one that is fitted)",
    "optimizer": "a name, a mapping, or a function of groups: lambda groups: torch.optim.NAdam(groups, lr=0.01)",
}


_BASES: dict[str, type | tuple[type, ...]] = {
    "model": Model,
    "geometry": Geometry,
    "guide": Guide,
    "estimator": Estimator,
    "optimizer": (Rule, Minimizer),
    "scheduler": Schedule,
    "partition": Partition,
    "stop": Stop,
    "engine": Settings,
    "distributed": Distributed,
}
