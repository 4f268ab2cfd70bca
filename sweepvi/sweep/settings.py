"""How a sweep is run: the ``sweep`` and ``workers`` groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from sweepvi.keys import Key, Keyed

Objective: TypeAlias = Literal["elbo", "k_hat", "seconds", "heldout"]

MOST_ALIKE = 4
"""Seeds from which on a signed-rank test can say anything."""

DATABASES = ("sqlite", "postgresql", "mysql")
"""The databases that Optuna can keep a study in, as their URLs begin."""


@dataclass(frozen=True)
class SweepSettings(Keyed):
    """A sweep: what is searched, by which rules, and how much."""

    n_trials: Annotated[
        int | None, Key("trials in all, those of earlier sessions included; null: every combination, once", ge=1)
    ] = None
    sampler: Annotated[
        Literal["tpe", "gp", "cmaes", "random", "qmc", "nsga2", "grid"], Key("what proposes the trials")
    ] = "tpe"
    seed: Annotated[int, Key("fixes what the sampler proposes", ge=0, lt=2**32)] = 0
    pruner: Annotated[
        Literal["auto", "none", "median", "hyperband", "successive_halving", "wilcoxon"],
        Key("what stops poor trials early; auto: hyperband where trials are sampled for one objective, else none"),
    ] = "auto"
    reduction: Annotated[int, Key("factor between the steps of two rungs", ge=2)] = 3
    rungs: Annotated[
        int, Key("times that a trial is looked at before its end, at steps / reduction, / reduction**2, …", ge=0)
    ] = 3
    rung_draws: Annotated[int, Key("draws, the same for all trials, for the ELBO at a rung", ge=1)] = 64
    seeds: Annotated[int, Key("fits of a trial, under different seeds; its objective is their mean", ge=1)] = 1
    objective: Annotated[
        tuple[Objective, ...], Key("what is sought: one or several of elbo, k_hat, seconds, heldout")
    ] = ("elbo",)
    target: Annotated[float | None, Key("ELBO that objective=seconds is the time to; null: to the fit's end")] = None
    enqueue: Annotated[
        tuple[Mapping[str, Any], ...], Key("settings to try before others, each a mapping from key to value")
    ] = ()
    time_limit: Annotated[float | None, Key("seconds that a trial may take", gt=0)] = None
    storage: Annotated[
        str | None,
        Key("database that also gets the study: a URL, env:NAME or file:PATH that holds one, journal:PATH; null: none"),
    ] = None
    agents: Annotated[int, Key("agents that hydra/launcher starts, a job each", ge=1)] = 1
    agent_timeout: Annotated[
        float, Key("seconds without a sign of it after which an agent's trials are run by others", gt=0)
    ] = 60.0
    finalists: Annotated[int, Key("best trials that are scored again, on fresh draws and seeds", ge=0)] = 3
    final_draws: Annotated[int, Key("fresh draws for their scores", ge=1)] = 10_000
    final_seeds: Annotated[int, Key("further seeds that they are fitted under", ge=0)] = 2
    folders: Annotated[bool, Key("save each trial as a run folder too")] = False
    space: Annotated[
        Mapping[str, str], Key("group or key → what to search, as on the command line, which comes first")
    ] = field(default_factory=dict)
    max_grid: Annotated[int, Key("combinations above which a grid is refused", ge=1)] = 10_000

    def conflicts(self) -> dict[str, str]:
        """See :meth:`Keyed.conflicts`."""
        wrong = {}
        if not self.objective:
            wrong["objective"] = "must name at least one of elbo, k_hat, seconds, heldout"
        elif len(set(self.objective)) < len(self.objective):
            wrong["objective"] = "names one of them twice"
        elif "k_hat" in self.objective and find_spec("arviz_stats") is None:
            wrong["objective"] = "k_hat needs the package arviz-stats, which needs Python 3.11 or later"
        if self.pruner == "wilcoxon" and self.seeds < MOST_ALIKE:
            wrong["pruner"] = f"compares trials seed by seed: set sweep.seeds to {MOST_ALIKE} or more"
        if self.storage is not None and (message := _wrong_with_storage(self.storage)):
            wrong["storage"] = message
        return wrong


def _wrong_with_storage(text: str) -> str:
    """What is wrong with a storage, in words; empty if nothing is. The database itself is not asked."""
    forms = "a URL such as postgresql://host/name or sqlite:///FILE, env:NAME, file:PATH or journal:PATH"
    if re.fullmatch(r"env:[A-Za-z_]\w*|(file|journal):(?!//).+", text):
        return ""
    try:
        parts = urlsplit(text)
        password, _ = parts.password, parts.port
    except ValueError:
        return f"is not readable; must be {forms}"
    if password is not None:
        return "holds a password, which would be written into files; keep the URL in env:NAME or file:PATH"
    known = parts.scheme.partition("+")[0] in DATABASES and text.partition("://")[1]
    return "" if known and (parts.hostname or parts.path.strip("/")) else f"must be {forms}"


@dataclass(frozen=True)
class WorkerSettings(Keyed):
    """The processes that run trials on this machine."""

    gpus: Annotated[
        Literal["auto"] | tuple[int, ...], Key("CUDA devices to use, such as [0,1]; [] is none; auto: all", ge=0)
    ] = "auto"
    per_device: Annotated[int, Key("processes on each device", ge=1)] = 1
    cpus: Annotated[
        int | None, Key("processes without a device; null: a processor each if there are no devices, else 0", ge=0)
    ] = None
    lanes: Annotated[int | None, Key("most trials that a process runs at once, as lanes; null: 256", ge=1)] = None
    memory: Annotated[float | None, Key("GiB that a process may take; null: an equal share", gt=0)] = None
    recycle_after: Annotated[int | None, Key("trials after which a process is replaced; null: never", ge=1)] = None
