"""Everything that can be found wrong before a run: nothing is written until all of it has passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sweepvi import config, engine, recipe, registry
from sweepvi.command import Command
from sweepvi.engine import Checkpoint
from sweepvi.errors import CheckpointError, ConfigError, Problem, collected, raise_if, unique
from sweepvi.recipe import RESUMABLE, Recipe, fingerprint
from sweepvi.results import occupied
from sweepvi.run_folder import CHECKPOINT


def composed(command: Command, variants: Sequence[Sequence[str]]) -> list[config.Composition]:
    """The configuration of each list of overrides; ``ConfigError`` with all that is wrong with any of them."""
    problems, base, source = list(command.problems), None, command.resume or command.rerun
    if source and not (command.resume and source.is_file()):
        base, found = config.read_run(source)
        wrong = (problem for group, node in base.items() for problem in registry.check(group, node) if not found)
        found = found or [replace(problem, key=f"{source}: {problem.key}") for problem in wrong]
        base, problems = None if found else base, problems + found
    untrusted = config.scan(command.extra) if command.extra else []
    problems += untrusted
    compositions = []
    for overrides in variants:
        if source and base is None:
            overrides = [text for text in overrides if not _names_code(text)]
        made = config.compose(overrides, command.extra, base, trusted=not untrusted)
        problems += made.problems
        problems += recipe.check(made.config) if made.config else []
        problems += _changed(base, made.config) if command.resume and base else []
        compositions.append(made)
    raise_if(unique(problems))
    return compositions


def _names_code(text: str) -> bool:
    return text.partition("=")[0] in {f"{group}.{key}" for group, keys in config.CODE_KEYS.items() for key in keys}


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[Problem]:
    """What a resumed run may not change."""
    return [
        Problem.of(
            f"{group}.{key}", value, f"the run to resume has {before[group].get(key)!r}; rerun= starts a new run"
        )
        for group, node in now.items()
        for key, value in (node.items() if isinstance(node, dict) else ())
        if before[group].get(key) != value and not (group == "engine" and key in RESUMABLE)
    ]


def checked(made: config.Composition, command: Command, job: int | None = None) -> Recipe:
    """The recipe, after a trial run; ``job`` is the number of a multirun's fit. ``ConfigError`` says what is wrong."""
    built, problems = collected(partial(recipe.build, made.config), lambda: _check_folder(made, command, job))
    if problems:
        raise ConfigError(problems)
    if command.resume:
        _check_checkpoint(command.resume, built[0])
    engine.trial_run(built[0])
    return built[0]


def _check_folder(made: config.Composition, command: Command, job: int | None) -> None:
    """Whether the run's folder can be made, and holds no run yet."""
    if command.resume:
        return
    folder = Path(str(made.hydra.run.dir)) if job is None else Path(str(made.hydra.sweep.dir)) / str(job)
    in_the_way = [parent for parent in (folder, *folder.parents) if parent.exists() and not parent.is_dir()]
    key = "hydra.run.dir" if job is None else "hydra.sweep.dir"
    raise_if([Problem.of(key, str(folder), f"{parent} is a file, not a folder") for parent in in_the_way])
    raise_if(occupied(folder))


def _check_checkpoint(folder: Path, recipe: Recipe) -> None:
    """Whether the run's checkpoint, if it has one, can be continued by this recipe."""
    if not (folder / CHECKPOINT).exists():
        return
    try:
        taken = Checkpoint(folder / CHECKPOINT, fingerprint(recipe)).load().meta["step"]
    except CheckpointError as error:
        raise ConfigError([Problem("resume", str(error))]) from error
    steps = recipe.settings.steps
    raise_if(
        [Problem.of("engine.steps", steps, f"the run to resume has taken {taken} already")] if steps < taken else []
    )
