"""A recipe: all that one fit needs, as objects. Made from a configuration, read by the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import nn

from sweepvi import frozen_noise, rank_limits, registry
from sweepvi.distributed import Distributed
from sweepvi.errors import ConfigError, collected, raise_if, unknown
from sweepvi.errors import Problem as Complaint
from sweepvi.estimators import Estimator
from sweepvi.geometry import Geometry
from sweepvi.guides import Guide
from sweepvi.guides.custom import GivenGuide
from sweepvi.guides.own import OwnGuide
from sweepvi.loading import called, loader, path_of
from sweepvi.optim import Minimizer, Rule
from sweepvi.partition import Partition
from sweepvi.problem import Fresh, Problem
from sweepvi.random_state import seeded
from sweepvi.schedule import Schedule
from sweepvi.settings import Settings
from sweepvi.stopping import Stop

OptimizerFactory: TypeAlias = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Makes a torch optimizer of parameter groups; an alternative to an update rule."""


@dataclass(frozen=True)
class ParameterGroup:
    """How the parameters of one group are optimized."""

    label: str
    optimizer: Rule | Minimizer | OptimizerFactory
    scheduler: Schedule
    lr_factor: float
    """Factor on the step size that the optimizer is configured with."""
    frozen: bool
    shares_norm: bool
    """Whether a bound on the global norm is the fit's own, on all groups that have it together."""


@dataclass(frozen=True)
class Source:
    """Model and guide before the seed has a say: classes are not instantiated."""

    problem: Problem
    guide: Guide


@dataclass(frozen=True)
class Recipe:
    """One fit, ready to run."""

    problem: Problem
    geometry: Geometry
    guide: Guide
    estimator: Estimator
    optimizer: Rule | Minimizer | OptimizerFactory
    scheduler: Schedule
    partition: Partition
    groups: Mapping[str, ParameterGroup]
    """Label → how that group of the partition is optimized; schedules have the fit's length."""
    stop: Stop
    settings: Settings
    distributed: Distributed
    config: Mapping[str, Any]
    """The configuration it was made from, complete with every default; plain data."""
    source: Source
    """What is the same under every seed."""

    def reach(self) -> dict[str, Any]:
        """What runs in the fit, as far as it exists before it, and the data, which may hold networks."""
        guide = self.guide.program if isinstance(self.guide, GivenGuide) else None
        return {"model": self.problem.model, "guide": guide, "args": self.problem.args, "kwargs": self.problem.kwargs}


LOADING_SEED = 0
"""The seed under which the user's files are executed and their data made."""


def check(config: Mapping[str, Any], given: Container[str] = ()) -> list[Complaint]:
    """Everything wrong with a configuration, before any of it is loaded or run; not of groups in ``given``."""
    problems = [
        Complaint.of(str(key), value, unknown("config group", str(key), registry.GROUPS))
        for key, value in config.items()
        if key not in registry.GROUPS
    ]
    for group in registry.GROUPS:
        if group in given:
            continue
        if group not in config:
            problems.append(Complaint(group, f"missing; choose one of {', '.join(registry.names(group))}"))
        else:
            problems += registry.check(group, config[group])
    wrong = {problem.key.partition(".")[0] for problem in problems}
    named = isinstance(config.get("optimizer"), Mapping) and "name" in config["optimizer"]
    if named and "partition" in config and "partition" not in wrong and "partition" not in given:
        partition = registry.build("partition", config["partition"])
        problems += _group_optimizers(partition, config["optimizer"], "optimizer" in given)[1]
    if not wrong and "optimizer" not in given and config.keys() == set(registry.GROUPS):
        problems += rank_limits.problems(config) if rank_limits.on_ranks(config) else []
        problems += frozen_noise.problems(config) if frozen_noise.is_minimizer(config["optimizer"]) else []
    if not any(group in wrong or group in given for group in ("model", "guide")):
        problems += _no_own_guide(config["model"]["name"], config["guide"]["name"])
    return problems


def _no_own_guide(model: str, guide: str) -> list[Complaint]:
    """Whether a shipped model is to run with a guide of its own and has none; a user's is asked once it is loaded."""
    if guide != "own" or model == "custom":
        return []
    bringing = [row.name for row in registry.rows("model") if row.component().brings_guide]
    message = f"model={model} brings none ({', '.join(bringing)} do); use auto_normal"
    return [] if model in bringing else [Complaint.of("guide", guide, message)]


def _group_optimizers(
    partition: Partition, node: Mapping[str, Any], given: bool
) -> tuple[dict[str, Rule], list[Complaint]]:
    """The rules of the groups that override the optimizer's settings, by label, and what is wrong with them."""
    rules: dict[str, Rule] = {}
    problems: list[Complaint] = []
    for label, place in partition.places().items():
        own, key = place.group.optimizer, f"partition.{place.key}.optimizer"
        if not own:
            continue
        if given and "name" not in own:
            problems.append(Complaint.of(key, own, "must name an optimizer: the fit's own is a Python object"))
            continue
        if frozen_noise.is_minimizer(own):
            message = "moves all parameters together, and cannot be a group's own; make it the fit's optimizer"
            problems.append(Complaint.of(f"{key}.name", own["name"], message))
            continue
        other = own.get("name", node["name"]) != node["name"]
        merged = dict(own) if other else _merged(node, own)
        try:
            rules[label] = registry.build("optimizer", merged)
        except ConfigError as error:
            # What is wrong with the fit's own settings is said of them.
            fits = [] if other or given else registry.check("optimizer", node)
            problems += [replace(p, key=p.key.replace("optimizer", key, 1)) for p in error.problems if p not in fits]
    return rules, problems


def _merged(node: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A node with some of its keys, and keys of its keys, replaced."""
    nested = {
        k: _merged(node[k], v) for k, v in own.items() if isinstance(v, Mapping) and isinstance(node.get(k), Mapping)
    }
    return {**node, **own, **nested}


def _parameter_groups(
    parts: Mapping[str, Any], config: Mapping[str, Any], given: Container[str]
) -> dict[str, ParameterGroup]:
    partition: Partition = parts["partition"]
    rules, problems = _group_optimizers(partition, config["optimizer"], "optimizer" in given)
    raise_if(problems)
    groups = {}
    for label, place in partition.places().items():
        group = place.group
        groups[label] = ParameterGroup(
            label=label,
            optimizer=rules[label] if label in rules else parts["optimizer"],
            scheduler=(group.scheduler or parts["scheduler"]).over(parts["engine"].steps),
            lr_factor=group.lr_factor,
            frozen=group.frozen,
            shares_norm="global_norm" not in (group.optimizer.get("clip") or {})
            and group.optimizer.get("name", config["optimizer"]["name"]) == config["optimizer"]["name"],
        )
    return groups


def build(config: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a configuration; loads the model, its data and the guide.

    Args:
        config: a node for every group, ``{"optimizer": {"name": "adam", "lr": 0.1}, …}``.
        given: objects that stand for a group's component; the group's node only describes them. For ``model``, a
            :class:`Problem`.

    Raises:
        ConfigError: with every problem.

    """
    raise_if(check(config, given or {}))
    return build_checked(config, given or {})


def build_checked(config: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """See :func:`build`; of what :func:`check` has let through."""
    parts = {g: given[g] if g in given else registry.build(g, config[g]) for g in registry.GROUPS}
    distributed: Distributed = parts["distributed"]
    settings: Settings = parts["engine"]
    settings = replace(settings, device=distributed.device(settings.device))
    load = loader()
    # Whatever the fit's seed, a file's data are the same: seeds that fit different data could not be compared.
    with seeded(LOADING_SEED):
        (problem, guide), problems = collected(
            lambda: given["model"] if "model" in given else parts["model"].problem(load),
            lambda: parts["guide"].resolve(load),
        )
    raise_if([*device_problems(settings), *distributed.problems(settings.device), *problems])
    source = Source(problem, guide)
    problem, guide = _instantiated(source, config, settings.seed)
    nodes = {
        g: dict(config[g]) if g in given else registry.described(config[g]["name"], parts[g]) for g in registry.GROUPS
    }
    return Recipe(
        problem=problem,
        geometry=parts["geometry"],
        guide=guide,
        estimator=parts["estimator"],
        optimizer=parts["optimizer"],
        scheduler=parts["scheduler"],
        partition=parts["partition"],
        groups=_parameter_groups(parts, config, given),
        stop=parts["stop"],
        settings=settings,
        distributed=distributed,
        config=nodes,
        source=source,
    )


def reseeded(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe under another seed: a model that is a class is instantiated anew, its data stay."""
    config = {**recipe.config, "engine": {**recipe.config["engine"], "seed": seed}}
    problem, guide = _instantiated(recipe.source, config, seed)
    return replace(recipe, problem=problem, guide=guide, settings=replace(recipe.settings, seed=seed), config=config)


def _instantiated(source: Source, config: Mapping[str, Any], seed: int) -> tuple[Problem, Guide]:
    """Model and guide as they run under a seed."""
    problem, guide = source.problem, source.guide
    with seeded(seed):
        (model, guide), problems = collected(
            lambda: _instance("model", problem.model, config["model"]),
            lambda: (
                GivenGuide(_instance("guide", guide.program, config["guide"]))
                if isinstance(guide, GivenGuide)
                else guide
            ),
        )
    raise_if(problems)
    return replace(problem, model=model), guide.of(model) if isinstance(guide, OwnGuide) else guide


def device_problems(settings: Settings) -> list[Complaint]:
    """Whether this machine has the device."""
    kind, _, index = settings.device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        available = torch.cuda.device_count()
        message = f"this machine has {available} CUDA devices; valid: {'cuda:N below that, ' if available else ''}cpu"
        return [Complaint.of("engine.device", settings.device, message)]
    return []


def config_hash(config: Mapping[str, Any]) -> str:
    """A hash of a complete configuration: twelve hexadecimal digits."""
    text = json.dumps(config, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


RESUMABLE = (
    "steps",
    "log_every",
    "checkpoint_every",
    "score_draws",
    "posterior_draws",
    "score_minibatches",
    "compile",
    "compiled_from",
    "threads",
    "memory",
)
"""Keys of ``engine`` that say where a fit ends and how it is watched, and may change when it is resumed."""


def fingerprint(recipe: Recipe) -> str:
    """A hash of what determines a fit's course, step by step: a checkpoint resumes only fits of equal fingerprint.

    Of the configuration and the data; a change of the user's own code is not seen.
    """
    engine = {key: value for key, value in recipe.config["engine"].items() if key not in RESUMABLE}
    course = {group: node for group, node in recipe.config.items() if group != "distributed" or node["name"] != "none"}
    data = _plain_data(recipe)
    # A schedule over the whole fit is another one when the fit is longer.
    schedules = {label: registry.described("", group.scheduler) for label, group in recipe.groups.items()}
    return config_hash({**course, "engine": engine, "data": data, "schedules": schedules})


def data_hash(recipe: Recipe) -> str:
    """A hash of a fit's data: twelve hexadecimal digits."""
    return config_hash(_plain_data(recipe))


def _plain_data(recipe: Recipe) -> dict[str, Any]:
    return _plain({"args": recipe.problem.args, "kwargs": recipe.problem.kwargs})


def _plain(value: Any) -> Any:
    """Data as JSON can hold it: a tensor or array as type, shape and hash of its content, an object as its type."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return [str(array.dtype), list(array.shape), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str | None) else path_of(type(value))


def _instance(group: str, program: Any, node: Mapping[str, Any]) -> Any:
    """The program, or an instance of it if it is a class; an autoguide's class waits for the model."""
    if isinstance(program, type) and issubclass(program, AutoGuide):
        return program
    key, path = (f"{group}.path", node["path"]) if "path" in node else (group, path_of(program))
    made = called(key, path, program) if isinstance(program, type | Fresh) else program
    if group == "model":
        made = _that_runs(made)
    if not callable(made):
        raise ConfigError([Complaint.of(key, path, f"is not callable: {type(made).__name__}")])
    return made


def _that_runs(model: Any) -> Any:
    """A model itself; or its method ``model``, if it is an object that has one and cannot be called."""
    silent = isinstance(model, nn.Module) and type(model).forward is nn.Module.forward
    return getattr(model, "model", model) if silent or not callable(model) else model
