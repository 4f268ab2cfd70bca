"""From what is asked for to a plan, with everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepvi import config
from sweepvi.config import Composition
from sweepvi.config.overrides import parsed
from sweepvi.errors import ConfigError, Problem, collected, raise_if, unique, unknown
from sweepvi.frozen_noise import is_minimizer
from sweepvi.keys import construct
from sweepvi.sweep.check import check_space, run_once
from sweepvi.sweep.grammar import Domain, domain_of, domains_of
from sweepvi.sweep.plan import Plan
from sweepvi.sweep.race import raced, races
from sweepvi.sweep.settings import SweepSettings, WorkerSettings
from sweepvi.sweep.space import Compose, Dimension, Space, chosen_text

NOTHING = (
    "nothing is searched: give several values, optimizer.lr=0.01,0.1, an interval with sweep.n_trials=100, "
    "or a ready space, sweep=quick"
)


def plan_of(overrides: Sequence[str], compose: Compose, extra: Path | None = None) -> Plan:
    """The plan of a command line, checked: every structure is composed, checked and run once.

    Args:
        overrides: the command line's, those that search too.
        compose: composes the configuration of overrides of one value each.
        extra: the user's configuration folder.

    Raises:
        ConfigError: with everything that is wrong.

    """
    return planned(overrides, compose, extra, {})


def planned(overrides: Sequence[str], compose: Compose, extra: Path | None, given: Mapping[str, Any]) -> Plan:
    """The plan of overrides; ``given`` holds objects that stand for a group's component. Raises as :func:`plan_of`."""
    options = {group: _options(group, extra) for group in config.groups()}
    fixed, domains, problems = _split(overrides, options)
    first = compose(
        [*fixed, *(chosen_text(one.key, (one.values or ("",))[0]) for one in domains if "." not in one.key)]
    )
    settings, wrong = construct(SweepSettings, first.sweeping.get("sweep", {}), "sweep")
    workers, also_wrong = construct(WorkerSettings, first.sweeping.get("workers", {}), "workers")
    problems += [*map(_without_password, wrong), *also_wrong]
    [race], wrong = collected(lambda: _race(first, given, [*fixed, *(f"{domain.key}=" for domain in domains)]))
    problems += wrong
    if race is not None:
        fixed += race[1]
        first.sweeping["sweep"]["space"] = {**first.sweeping["sweep"]["space"], "preset": race[0]}
    more, wrong = _ready_space(first, fixed, domains, options)
    domains, problems = domains + more, problems + wrong
    problems += _by_rule(fixed, domains)
    if settings is None or workers is None:
        settings, workers = settings or SweepSettings(), workers or WorkerSettings()
    grid, wrong = _is_grid(settings, domains)
    problems += wrong
    choices = [domain for domain in domains if "." not in domain.key]
    space = Space(compose, fixed, choices, [domain for domain in domains if "." in domain.key], not grid)
    plan = Plan(
        settings,
        workers,
        grid,
        [Dimension(one.key, one) for one in choices],
        overrides=fixed,
        _space=space,
        _domains=domains,
    )
    problems += check_space(space, grid, settings.max_grid, given)
    if not problems and not space.choices and not plan.dimensions({}):
        problems.append(Problem("sweep", NOTHING))
    if not problems:
        problems += run_once(space, given)
    raise_if(unique(problems))
    plan.enqueued()
    return plan


def _options(group: str, extra: Path | None) -> list[str]:
    """What ``group=*`` stands for: minimizers, which need frozen noise, are searched where they are named."""
    found = config.options(group, extra)
    return [name for name in found if group != "optimizer" or not is_minimizer({"name": name})]


def _split(
    overrides: Sequence[str], options: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[Domain], list[Problem]]:
    """The overrides that search nothing, the domains of those that do, and what is wrong with these."""
    fixed: list[str] = []
    domains: list[Domain] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            domain = domain_of(text, options.get(text.partition("=")[0].lstrip("+")))
        except ConfigError as error:
            problems += error.problems
            continue
        if domain is None:
            fixed.append(text)
        elif (message := _unsearchable(text, domain.key, options)) is not None:
            problems.append(Problem(text, message))
        elif any(domain.key == other.key for other in domains):
            problems.append(Problem(text, f"{domain.key} is searched twice"))
        else:
            domains.append(domain)
    return fixed, domains, problems


def _unsearchable(text: str, key: str, options: Mapping[str, Sequence[str]]) -> str | None:
    group = key.partition(".")[0]
    override = parsed(text)
    if override is not None and override.package is not None:
        return f"a group keeps its place; choose with {key}=a,b"
    if group in config.SWEEPING:
        return "says how a sweep is run, and takes one value; a list is written [a,b]"
    if group == "hydra" or key.startswith("hydra/"):
        return "is Hydra's own, and takes one value"
    if key.endswith(".name") and key.count(".") == 1:
        return f"choose with {group}=a,b; valid: {', '.join(options.get(group, ()))}"
    if "." in key and group in config.SELECTIONS:
        return f"choose with {group}=a,b; valid: {', '.join(options[group])}"
    return None if group in options else unknown("config group", group, options)


def _race(first: Composition, given: Mapping[str, Any], overrides: Sequence[str]) -> tuple[str, list[str]] | None:
    """What ``sweep=auto`` races, if it is asked for; see :func:`sweepvi.sweep.race.raced`."""
    decided = {text.lstrip("+~").partition("=")[0] for text in overrides}
    if "preset" in decided or not races(first.sweeping.get("sweep", {}).get("space")):
        return None
    return raced(first, given, {key.partition(".")[0] for key in decided})


def _by_rule(fixed: Sequence[str], domains: Sequence[Domain]) -> list[Problem]:
    """Presets of one fit only."""
    chosen = "preset=auto" in fixed or any(one.key == "preset" and "auto" in (one.values or ()) for one in domains)
    message = "tries one fit after another, for one model; sweep=auto races the others"
    return [Problem.of("preset", "auto", message)] if chosen else []


def _without_password(problem: Problem) -> Problem:
    """The problem of a storage URL without the URL: it may hold a password."""
    return Problem(problem.key, problem.message) if problem.key == "sweep.storage" else problem


def _ready_space(
    first: Composition, fixed: Sequence[str], domains: Sequence[Domain], options: Mapping[str, Sequence[str]]
) -> tuple[list[Domain], list[Problem]]:
    """What ``sweep.space`` searches and the command line neither sets nor searches."""
    node = first.sweeping.get("sweep", {}).get("space")
    if not isinstance(node, Mapping):
        return [], []
    known = {domain.key for domain in domains} | {text.lstrip("+~").partition("=")[0] for text in fixed}
    texts = {key: text for key, text in node.items() if key not in known and isinstance(text, str) and text}
    found: list[Domain] = []
    problems: list[Problem] = []
    for one in domains_of(texts, "sweep.space", options):
        if isinstance(one, Problem):
            problems.append(one)
            continue
        group, _, name = one.key.partition(".")
        message = _unsearchable(f"{one.key}={one.text}", one.key, options)
        if message is None and name in config.CODE_KEYS.get(group, ()):
            message = f"a file alone never runs code; give it on the command line: {one.key}={one.text}"
        if message is None:
            found.append(one)
        else:
            problems.append(Problem.of(f"sweep.space.{one.key}", one.text, message))
    return found, problems


def _is_grid(settings: SweepSettings, domains: Sequence[Domain]) -> tuple[bool, list[Problem]]:
    """Whether every combination is meant; what stands in the way of it."""
    if settings.n_trials is not None and settings.sampler != "grid":
        return False, []
    message = (
        "an interval has no end of values; say how many trials to sample: sweep.n_trials=100"
        if settings.n_trials is None and settings.sampler != "grid"
        else "sampler=grid takes lists and ranges only; choose another sampler, or give the values"
    )
    endless = [domain for domain in domains if domain.values is None]
    return True, [Problem(f"{domain.key}={domain.text}", message) for domain in endless]
