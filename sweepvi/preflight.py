"""Everything that can be found wrong before a run: nothing is written until all of it has passed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi import api, config, engine, launching, rank_limits, recipe, registry
from sweepvi import preset as presets
from sweepvi.command import Command
from sweepvi.distributed import launched
from sweepvi.engine import Checkpoint
from sweepvi.errors import CheckpointError, ConfigError, Problem, collected, raise_if, unique
from sweepvi.recipe import RESUMABLE, Recipe, fingerprint
from sweepvi.results import occupied
from sweepvi.run_folder import CHECKPOINT, PRESET, SAID

if TYPE_CHECKING:
    from sweepvi.sweep.plan import Plan


class Composer:
    """Composes a command's configuration, for any overrides: on an earlier run's, with the user's folder.

    Attributes:
        problems: everything wrong with the command, the earlier run and the folder.
        said: of a run by ``preset=auto`` that was stopped, what its preset leaves alone; None of other runs.

    """

    def __init__(self, command: Command) -> None:
        source = command.resume or command.rerun
        self._command, self._base, self.problems = command, None, list(command.problems)
        self._names_a_run, self.said = source is not None, None
        if source and not (command.resume and source.is_file()):
            stopped = command.resume is not None and presets.unfinished(source)
            base, found = config.read_run(source / PRESET if stopped else source, (SAID,) if stopped else ())
            self.said = frozenset(base.pop(SAID, ())) if stopped else None
            wrong = (problem for group, node in base.items() for problem in registry.check(group, node) if not found)
            found = found or [replace(problem, key=f"{source}: {problem.key}") for problem in wrong]
            self._base = None if found else base
            self.problems += found
        untrusted = config.scan(command.extra) if command.extra else []
        self._trusted = not untrusted
        self.problems += untrusted

    def __call__(self, overrides: Sequence[str]) -> config.Composition:
        """The configuration of overrides of one value each, with what is wrong with it as a composition."""
        if self._names_a_run and self._base is None:
            overrides = [text for text in overrides if not _names_code(text)]
        return config.compose(overrides, self._command.extra, self._base, self._trusted)

    def checked(self, overrides: Sequence[str]) -> config.Composition:
        """The same, with everything that is wrong with the configuration of a single run."""
        made = self(overrides)
        made.problems += recipe.check(made.config) if made.config else []
        if self._command.resume and self._base:
            made.problems += _changed(self._base, made.config)
        if not self._command.cfg:
            made.problems += [
                Problem(text, "is a setting of a sweep; add -m")
                for text in overrides
                if text.lstrip("+~").partition("=")[0].partition(".")[0] in config.SWEEPING
            ]
        return made


def composed(command: Command) -> tuple[config.Composition, frozenset[str] | None]:
    """The configuration of a single run, and what ``preset=auto`` leaves alone if it decides about the rest.

    Raises ``ConfigError`` with all that is wrong with it.
    """
    composer = Composer(command)
    made = composer.checked(command.overrides)
    problems = [*composer.problems, *made.problems]
    if command.resume and made.preset is not None:
        problems.append(Problem.of("preset", made.preset, "the run to resume has its own; rerun= starts a new run"))
    raise_if(unique(problems))
    said = presets.said(made.config, api.DEFAULTS, made.named)
    if rank_limits.on_ranks(made.config):
        raise_if([Problem.of("preset", "auto", ON_RANKS)] if made.preset == "auto" else [])
        return made, None
    raise_if(_many_alike())
    if composer.said is not None:
        return made, composer.said | said
    untouched = made.preset is None and presets.untuned(said) and not (command.resume or command.rerun)
    return made, said if made.preset == "auto" or untouched else None


ON_RANKS = "tries fits one after another, on one process; choose the settings yourself, or a preset by name"


def _many_alike() -> list[Problem]:
    """Whether several processes were started that would all run the same fit."""
    launch = launched()
    if launch is None or launch.world_size == 1 or not LAUNCHERS & os.environ.keys():
        return []
    message = f"{launch.world_size} processes were started, and each would run the same fit; add distributed=gloo"
    return [Problem.of("distributed", "none", message)]


LAUNCHERS = {"TORCHELASTIC_RUN_ID", "HOROVOD_RANK"}
"""Variables of those who start processes for one fit; under SLURM, each may be one of a sweep."""


def _names_code(text: str) -> bool:
    return text.partition("=")[0] in {f"{group}.{key}" for group, keys in config.CODE_KEYS.items() for key in keys}


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[Problem]:
    """What a resumed run may not change."""
    return [
        Problem.of(
            f"{group}.{key}", value, f"the run to resume has {before[group].get(key)!r}; rerun= starts a new run"
        )
        for group, node in now.items()
        for key, value in (node.items() if isinstance(node, dict) and group in before else ())
        if before[group].get(key) != value and not (group == "engine" and key in RESUMABLE)
    ]


def planned(command: Command) -> tuple[Plan, config.Composition]:
    """The plan of a sweep, and the composition that it starts from; ``ConfigError`` with all that is wrong with it."""
    from sweepvi.sweep.planning import NOTHING, plan_of

    composer = Composer(command)
    [plan], problems = collected(partial(plan_of, command.overrides, composer, command.extra))
    if composer.problems:
        # What is wrong with the command may be why.
        problems = [problem for problem in problems if problem.message != NOTHING]
    problems += [
        Problem(text, "is for one fit; the trials of a sweep run on a process each")
        for text in command.overrides
        if text.startswith("distributed") and text != "distributed=none"
    ]
    raise_if(unique([*composer.problems, *problems]))
    made = composer(plan.overrides)
    raise_if([*_wrong_with_sweeper(made), *launching.problems(launcher_of(made), plan.settings)])
    folder = sweep_folder(plan, made)
    raise_if(_in_the_way(folder, "hydra.sweep.dir") or occupied(folder))
    return plan, made


STUDY = "STUDY"
"""What stands in ``hydra.sweep.dir`` for a hash of the study's identity."""


def sweep_folder(plan: Plan, made: config.Composition) -> Path:
    """The sweep's folder: the same for the same study."""
    return Path(str(made.hydra.sweep.dir).replace(STUDY, recipe.config_hash(plan.identity())))


def launcher_of(made: config.Composition) -> str:
    """Which of Hydra's launchers a sweep is to be run by."""
    return str(made.hydra.runtime.choices["hydra/launcher"])


def _wrong_with_sweeper(made: config.Composition) -> list[Problem]:
    sweeper = made.hydra.runtime.choices["hydra/sweeper"]
    message = "sweeps are run by sweepvi's own sweeper: leave this out"
    return [] if sweeper == "sweepvi" else [Problem.of("hydra/sweeper", sweeper, message)]


def climbable(made: config.Composition, command: Command, said: frozenset[str]) -> presets.Ladder:
    """The ladder of ``preset=auto``, after a trial run; ``ConfigError`` says what is wrong."""
    built, problems = collected(partial(presets.ladder, made.config, {}, said), lambda: _check_folder(made, command))
    raise_if(problems)
    return built[0]


def checked(made: config.Composition, command: Command) -> Recipe:
    """The recipe, after a trial run; ``ConfigError`` says what is wrong."""
    built, problems = collected(partial(recipe.build, made.config), lambda: _check_folder(made, command))
    if problems:
        raise ConfigError(problems)
    if command.resume:
        _check_checkpoint(command.resume, built[0])
    engine.trial_run(built[0])
    return built[0]


def _check_folder(made: config.Composition, command: Command) -> None:
    """Whether the run's folder can be made, and holds no run yet."""
    folder = Path(str(made.hydra.run.dir))
    if command.resume or restarts(folder):
        return
    mode = made.hydra.mode
    raise_if([Problem.of("hydra.mode", mode.name, "several fits are run by -m")] if mode and mode.name != "RUN" else [])
    raise_if(_in_the_way(folder, "hydra.run.dir"))
    raise_if(occupied(folder))


def restarts(folder: Path) -> bool:
    """Whether the processes of a fit have been started again after one has died, and it goes on from a checkpoint."""
    launch = launched()
    return launch is not None and launch.restarts > 0 and (folder / CHECKPOINT).exists()


def _in_the_way(folder: Path, key: str) -> list[Problem]:
    """A file where a folder must be."""
    found = [parent for parent in (folder, *folder.parents) if parent.exists() and not parent.is_dir()]
    return [Problem.of(key, str(folder), f"{parent} is a file, not a folder") for parent in found]


def _check_checkpoint(folder: Path, recipe: Recipe) -> None:
    """Whether the run's checkpoint, if it has one, can be continued by this recipe."""
    if not (folder / CHECKPOINT).exists():
        return
    try:
        snapshot = Checkpoint(folder / CHECKPOINT, fingerprint(recipe)).load()
        engine.demand_as_many(snapshot, recipe.distributed.launch.world_size)
        taken = snapshot.meta["step"]
    except CheckpointError as error:
        raise ConfigError([Problem("resume", str(error))]) from error
    steps = recipe.settings.steps
    raise_if(
        [Problem.of("engine.steps", steps, f"the run to resume has taken {taken} already")] if steps < taken else []
    )
