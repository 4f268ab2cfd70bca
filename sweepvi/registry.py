"""Names → components: the only place that resolves names.

A component is one row below: its group, its name, and where its class is. Keys, types, ranges, defaults and meanings
are read off the class (:mod:`sweepvi.keys`), when they are needed: importing this module imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweepvi.errors import Problem, listed, raise_if, unknown
from sweepvi.keys import Keyed, KeySpec, construct, keys_of
from sweepvi.refused import refusal

GROUPS = (
    "model",
    "geometry",
    "guide",
    "estimator",
    "optimizer",
    "scheduler",
    "partition",
    "stop",
    "engine",
    "distributed",
)
"""The config groups that name components, in the order in which they are shown."""

GIVEN = "python"
"""The name, in a configuration, of a component that was given as a Python object."""


@dataclass(frozen=True)
class Row:
    """A component: group, name, and ``module:Class``."""

    group: str
    name: str
    target: str

    def component(self) -> type:
        """The component's class; imports its module."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def meaning(self) -> str:
        """The first line of the class's docstring."""
        return (self.component().__doc__ or "").strip().splitlines()[0]

    def specs(self) -> tuple[KeySpec, ...]:
        """The component's keys."""
        return keys_of(self.component())


_ROWS: dict[tuple[str, str], Row] = {}


def register(group: str, name: str, target: str) -> None:
    """Add a component, as ``"module:Class"``; ``ValueError`` if the group does not exist or the name is taken."""
    if group not in GROUPS:
        raise ValueError(unknown("group", group, GROUPS))
    if (group, name) in _ROWS:
        raise ValueError(f"{group}={name} is registered already, as {_ROWS[group, name].target}")
    _ROWS[group, name] = Row(group, name, target)


for _group, _name, _target in (
    ("model", "radon", "sweepvi.models.radon:Radon"),
    ("model", "eight_schools", "sweepvi.models.eight_schools:EightSchools"),
    ("model", "uk_drivers", "sweepvi.models.uk_drivers:UKDrivers"),
    ("model", "digits_vae", "sweepvi.models.digits_vae:DigitsVAE"),
    ("model", "digits_sbn", "sweepvi.models.digits_sbn:DigitsSBN"),
    ("model", "posteriordb", "sweepvi.models.posteriordb.component:Posteriordb"),
    ("model", "custom", "sweepvi.models.custom:CustomModel"),
    ("geometry", "none", "sweepvi.geometry.none:NoGeometry"),
    ("geometry", "standardize", "sweepvi.geometry.standardize:Standardize"),
    ("geometry", "laplace", "sweepvi.geometry.laplace:Laplace"),
    ("geometry", "pathfinder", "sweepvi.geometry.pathfinder:Pathfinder"),
    ("guide", "auto_normal", "sweepvi.guides.auto_normal:AutoNormal"),
    ("guide", "auto_diagonal_normal", "sweepvi.guides.auto_diagonal_normal:AutoDiagonalNormal"),
    ("guide", "auto_multivariate_normal", "sweepvi.guides.auto_multivariate_normal:AutoMultivariateNormal"),
    (
        "guide",
        "auto_low_rank_multivariate_normal",
        "sweepvi.guides.auto_low_rank_multivariate_normal:AutoLowRankMultivariateNormal",
    ),
    ("guide", "auto_delta", "sweepvi.guides.auto_delta:AutoDelta"),
    ("guide", "auto_iaf_normal", "sweepvi.guides.auto_iaf_normal:AutoIAFNormal"),
    ("guide", "auto_real_nvp", "sweepvi.guides.auto_real_nvp:AutoRealNVP"),
    ("guide", "own", "sweepvi.guides.own:OwnGuide"),
    ("guide", "custom", "sweepvi.guides.custom:CustomGuide"),
    ("estimator", "trace", "sweepvi.estimators.trace:Trace"),
    ("estimator", "trace_graph", "sweepvi.estimators.trace_graph:TraceGraph"),
    ("estimator", "trace_mean_field", "sweepvi.estimators.trace_mean_field:TraceMeanField"),
    ("estimator", "trace_enum", "sweepvi.estimators.trace_enum:TraceEnum"),
    ("estimator", "trace_tmc", "sweepvi.estimators.trace_tmc:TraceTMC"),
    ("estimator", "stl", "sweepvi.estimators.stl:STL"),
    ("estimator", "rloo", "sweepvi.estimators.rloo:RLOO"),
    ("estimator", "iwae", "sweepvi.estimators.iwae:IWAE"),
    ("estimator", "dreg", "sweepvi.estimators.dreg:DReG"),
    ("estimator", "vimco", "sweepvi.estimators.vimco:VIMCO"),
    ("estimator", "renyi", "sweepvi.estimators.renyi:Renyi"),
    (
        "estimator",
        "reweighted_wake_sleep",
        "sweepvi.estimators.reweighted_wake_sleep:ReweightedWakeSleep",
    ),
    ("estimator", "tail_adaptive", "sweepvi.estimators.tail_adaptive:TailAdaptive"),
    ("estimator", "mmd", "sweepvi.estimators.mmd:MMD"),
    ("estimator", "energy_distance", "sweepvi.estimators.energy_distance:EnergyDistance"),
    ("optimizer", "clipped_adam", "sweepvi.optim.clipped_adam:ClippedAdamRule"),
    ("optimizer", "adagrad_rmsprop", "sweepvi.optim.adagrad_rmsprop:AdagradRMSPropRule"),
    ("optimizer", "dct_adam", "sweepvi.optim.dct_adam:DCTAdamRule"),
    ("optimizer", "adam", "sweepvi.optim.adam:AdamRule"),
    ("optimizer", "adamw", "sweepvi.optim.adamw:AdamWRule"),
    ("optimizer", "sgd", "sweepvi.optim.sgd:SGDRule"),
    ("optimizer", "rmsprop", "sweepvi.optim.rmsprop:RMSpropRule"),
    ("optimizer", "adagrad", "sweepvi.optim.adagrad:AdagradRule"),
    ("optimizer", "adadelta", "sweepvi.optim.adadelta:AdadeltaRule"),
    ("optimizer", "adamax", "sweepvi.optim.adamax:AdamaxRule"),
    ("optimizer", "nadam", "sweepvi.optim.nadam:NAdamRule"),
    ("optimizer", "radam", "sweepvi.optim.radam:RAdamRule"),
    ("optimizer", "asgd", "sweepvi.optim.asgd:ASGDRule"),
    ("optimizer", "rprop", "sweepvi.optim.rprop:RpropRule"),
    ("optimizer", "adafactor", "sweepvi.optim.adafactor:AdafactorRule"),
    ("optimizer", "muon", "sweepvi.optim.muon:MuonRule"),
    ("optimizer", "schedule_free_adam", "sweepvi.optim.schedule_free_adam:ScheduleFreeAdamRule"),
    ("optimizer", "schedule_free_prodigy", "sweepvi.optim.schedule_free_prodigy:ScheduleFreeProdigyRule"),
    ("optimizer", "lbfgs", "sweepvi.optim.lbfgs:LBFGS"),
    ("optimizer", "newton", "sweepvi.optim.newton:TrustRegionNewton"),
    ("scheduler", "constant", "sweepvi.schedule.constant:Constant"),
    ("scheduler", "exponential", "sweepvi.schedule.exponential:Exponential"),
    ("scheduler", "step", "sweepvi.schedule.step:Step"),
    ("scheduler", "multistep", "sweepvi.schedule.multistep:MultiStep"),
    ("scheduler", "linear", "sweepvi.schedule.linear:Linear"),
    ("scheduler", "polynomial", "sweepvi.schedule.polynomial:Polynomial"),
    ("scheduler", "inverse_time", "sweepvi.schedule.inverse_time:InverseTime"),
    ("scheduler", "piecewise", "sweepvi.schedule.piecewise:Piecewise"),
    ("scheduler", "warmup", "sweepvi.schedule.warmup:Warmup"),
    ("scheduler", "cosine", "sweepvi.schedule.cosine:Cosine"),
    ("scheduler", "cosine_restarts", "sweepvi.schedule.cosine_restarts:CosineRestarts"),
    ("scheduler", "one_cycle", "sweepvi.schedule.one_cycle:OneCycle"),
    ("scheduler", "cyclic", "sweepvi.schedule.cyclic:Cyclic"),
    ("scheduler", "plateau", "sweepvi.schedule.plateau:Plateau"),
    ("scheduler", "sequential", "sweepvi.schedule.sequential:Sequential"),
    ("scheduler", "product", "sweepvi.schedule.product:Product"),
    ("scheduler", "torch", "sweepvi.schedule.torch_schedule:TorchSchedule"),
    ("partition", "single", "sweepvi.partition.single:Single"),
    ("partition", "loc_scale", "sweepvi.partition.presets:LocScale"),
    ("partition", "nn_variational", "sweepvi.partition.presets:NNVariational"),
    ("partition", "baseline_networks", "sweepvi.partition.presets:BaselineNetworks"),
    ("partition", "groups", "sweepvi.partition.groups:Groups"),
    ("stop", "steps", "sweepvi.stopping.steps:Steps"),
    ("stop", "auto", "sweepvi.stopping.auto:Auto"),
    ("engine", "auto", "sweepvi.settings:AutoSettings"),
    ("engine", "lanes", "sweepvi.settings:LaneSettings"),
    ("engine", "eager", "sweepvi.settings:Settings"),
    ("distributed", "none", "sweepvi.distributed.none:NotDistributed"),
    ("distributed", "gloo", "sweepvi.distributed.gloo:Gloo"),
    ("distributed", "nccl", "sweepvi.distributed.nccl:NCCL"),
    ("distributed", "horovod", "sweepvi.distributed.horovod:Horovod"),
):
    register(_group, _name, _target)


def rows(group: str | None = None) -> list[Row]:
    """All components, or those of one group, in the order of registration."""
    return [row for row in _ROWS.values() if group in (None, row.group)]


def names(group: str) -> list[str]:
    """The names in a group."""
    return [row.name for row in rows(group)]


def check(group: str, node: Any) -> list[Problem]:
    """Everything wrong with a group's node, ``{"name": …, key: value, …}``."""
    return _made(group, node, group)[1]


def build(group: str, node: Mapping[str, Any]) -> Any:
    """The component that a node describes; ``ConfigError`` with every problem if it describes none."""
    made, problems = _made(group, node, group)
    raise_if(problems)
    return made


def _made(group: str, node: Any, where: str) -> tuple[Any, list[Problem]]:
    if not isinstance(node, Mapping) or "name" not in node:
        return None, [Problem.of(where, node, f"must be a mapping with a name, one of {', '.join(names(group))}")]
    row = _ROWS.get((group, str(node["name"])))
    if row is None:
        message = refusal(group, str(node["name"])) or unknown(group, str(node["name"]), names(group))
        return None, [Problem.of(f"{where}.name", node["name"], message)]
    values = {key: value for key, value in node.items() if key != "name"}
    made, problems = construct(row.component(), values, where, _resolve)
    own = {spec.name for spec in row.specs()}
    strange = {f"{where}.{key}": str(key) for key in values if key not in own}
    return made, [_pointing(row, strange[p.key], p) if p.key in strange else p for p in problems]


def _pointing(row: Row, key: str, problem: Problem) -> Problem:
    """The problem of a key that a component does not have; if others of its group have it, it says which."""
    owners = [other.name for other in rows(row.group) if any(spec.name == key for spec in other.specs())]
    return replace(problem, message=f"{problem.message}; a key of {listed(owners)}") if owners else problem


def _resolve(group: str, node: Any) -> Any:
    """The component of a node, or of a name, within another's node; its problems have keys relative to it."""
    made, problems = _made(group, {"name": node} if isinstance(node, str) else node, "")
    raise_if(problems)
    return made


def described(name: str, component: Any) -> dict[str, Any]:
    """The complete node of a component: its name and the value of every key, as plain data."""
    return {"name": name} | _plain_keys(component)


def _plain_keys(keyed: Keyed) -> dict[str, Any]:
    return {spec.name: plain(getattr(keyed, spec.name), spec.key.component) for spec in keys_of(type(keyed))}


def plain(value: Any, group: str) -> Any:
    """A key's value as a configuration holds it; components in it are of ``group``."""
    if isinstance(value, Keyed):
        return described(name_of(group, value) or GIVEN, value) if group else _plain_keys(value)
    if isinstance(value, Mapping):
        return {name: plain(entry, group) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, group) for entry in value]
    return value


def name_of(group: str, component: Any) -> str | None:
    """The registered name of a component's class, or None."""
    target = f"{type(component).__module__}:{type(component).__qualname__}"
    return next((row.name for row in rows(group) if row.target == target), None)
