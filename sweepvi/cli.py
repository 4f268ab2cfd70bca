"""The command. Composes and checks first; enters Hydra only with a configuration that runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sweepvi import __version__, catalogue, config, telling
from sweepvi.errors import ConfigError, Problem, SweepviError, collected, raise_if, unique

if TYPE_CHECKING:
    from sweepvi.recipe import Recipe
    from sweepvi.results import FitResult

    Run = tuple[FitResult, Path]

log = logging.getLogger("sweepvi")

FINISHED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
HOW = "settings are given as group.key=value, see --help"
RESUMABLE = ("steps", "log_every", "checkpoint_every", "score_draws")
"""Keys of ``engine`` that may change when a run is resumed."""


def console() -> NoReturn:
    """Run the command line of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. Never raises: what is wrong is said in a line or a list."""
    try:
        return _run(_parse(arguments))
    except ConfigError as error:
        print(f"sweepvi: {error}", file=sys.stderr)
        return BAD_INPUT
    except SweepviError as error:
        print(f"sweepvi: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sweepvi: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        from sweepvi.loading import described

        print(f"sweepvi: the fit failed: {described(error)}; the run's log has the traceback", file=sys.stderr)
        return FAILED


@dataclass
class Command:
    """A command line, taken apart."""

    overrides: list[str]
    extra: Path | None
    multirun: bool
    quiet: bool
    show: str | None
    rerun: Path | None = None
    resume: Path | None = None
    cfg: bool = False
    hydra_flags: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([Problem("command line", f"{message}; {HOW}")])


def _parse(arguments: Sequence[str]) -> Command:
    parser = _Parser(prog="python -m sweepvi", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--package", "-p")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for flag in ("--help -h", "--components", "--version", "--multirun -m", "--quiet -q", "--resolve"):
        parser.add_argument(*flag.split(), action="store_true")
    for flag in ("--hydra-help", "--shell-completion -sc"):
        parser.add_argument(*flag.split(), action="store_true")
    found, strange = parser.parse_known_intermixed_args(list(arguments))
    shown = [name for name in ("help", "components", "version") if getattr(found, name)]
    command = Command([], found.config_dir, found.multirun, found.quiet, shown[0] if shown else None)
    command.problems = [Problem(word, f"no such flag; {HOW}") for word in strange]
    if found.cfg or found.info or found.hydra_help or found.shell_completion:
        command.cfg = bool(found.cfg)
        command.hydra_flags = [word for word in arguments if word not in (*found.overrides, "-q", "--quiet")]
    for text in found.overrides:
        key, _, value = text.partition("=")
        if key not in ("rerun", "resume"):
            command.overrides.append(text)
        elif not value:
            command.problems.append(Problem(text, f"name a run folder: {key}=DIR"))
        else:
            setattr(command, key, Path(value))
    if command.rerun and command.resume:
        command.problems.append(Problem("rerun, resume", "give one of them"))
    if command.multirun and command.resume:
        command.problems.append(Problem("resume", "resumes one run; it does not go with -m"))
    if command.resume and command.resume.is_file():
        command.problems.append(Problem.of("resume", str(command.resume), "is a file; name the run's folder"))
    return command


def _run(command: Command) -> int:
    if command.show:
        texts = {"help": catalogue.usage, "components": catalogue.components, "version": lambda: __version__}
        print(texts[command.show]())
        return FINISHED
    if command.hydra_flags:
        overrides = _composed(command, [command.overrides])[0].overrides if command.cfg else command.overrides
        return _enter_hydra(command, overrides, lambda _: None)
    return _run_many(command) if command.multirun else _run_one(command)


def _run_one(command: Command) -> int:
    [made] = _composed(command, [command.overrides])
    recipe = _checked(made, command)
    if command.resume:
        made.overrides.append(f"hydra.run.dir={config.quoted(str(command.resume))}")
    runs: list[Run] = []
    failed = _enter_hydra(command, made.overrides, lambda _: runs.append(_fit(recipe, command)))
    if not runs:
        return failed or FAILED
    if not command.quiet:
        print(telling.one(*runs[0]))
    return _status_of(runs[0][0])


def _run_many(command: Command) -> int:
    """Every combination of comma-separated values, one fit after another, by Hydra's own sweeper."""
    from omegaconf import OmegaConf

    from sweepvi import recipe

    variants = _composed(command, list(config.combinations(command.overrides, command.extra)))
    _, problems = collected(*(partial(_checked, made, command, job) for job, made in enumerate(variants)))
    raise_if(unique(problems))
    runs: list[Run] = []

    def job(composed: Any) -> None:
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        nodes = {str(key): node for key, node in plain.items() if key not in config.SELECTIONS}
        runs.append(_fit(recipe.build(nodes), command))
        if runs[-1][0].status == "interrupted":
            raise KeyboardInterrupt

    base = variants[0].overrides[: -len(variants[0].given) or None]
    failed = _enter_hydra(command, [*base, *map(config.forced, command.overrides)], job)
    if not command.quiet and runs:
        print(telling.many(runs))
    return failed or max((_status_of(result) for result, _ in runs), default=FAILED)


def _composed(command: Command, variants: Sequence[Sequence[str]]) -> list[config.Composition]:
    """The configuration of each variant; ``ConfigError`` with all that is wrong with the command and any of them."""
    from sweepvi import recipe, registry

    problems, base, source = list(command.problems), None, command.resume or command.rerun
    if source and not (command.resume and source.is_file()):
        base, found = config.read_run(source)
        checked = (problem for group, node in base.items() for problem in registry.check(group, node) if not found)
        found = found or [replace(problem, key=f"{source}: {problem.key}") for problem in checked]
        base, problems = None if found else base, problems + found
    untrusted = config.scan(command.extra) if command.extra else []
    problems += untrusted
    composed = []
    for overrides in variants:
        if source and base is None:
            overrides = [text for text in overrides if not _names_code(text)]
        made = config.compose(overrides, command.extra, base, trusted=not untrusted)
        problems += made.problems
        problems += recipe.check(made.config) if made.config else []
        problems += _changed(base, made.config) if command.resume and base else []
        composed.append(made)
    raise_if(unique(problems))
    return composed


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


def _checked(made: config.Composition, command: Command, job: int | None = None) -> Recipe:
    """The recipe, after a trial run: what goes wrong now has written nothing. ``job`` numbers the fits of a multirun."""
    from sweepvi import engine, recipe

    built, problems = collected(partial(recipe.build, made.config), lambda: _check_folder(made, command, job))
    if problems:
        raise ConfigError(problems)
    if command.resume:
        _check_checkpoint(command.resume, built[0])
    engine.trial_run(built[0])
    return built[0]


def _check_folder(made: config.Composition, command: Command, job: int | None) -> None:
    """Whether the run's folder can be made, and holds no run yet."""
    from sweepvi import api

    if command.resume:
        return
    folder = Path(str(made.hydra.run.dir)) if job is None else Path(str(made.hydra.sweep.dir)) / str(job)
    in_the_way = [parent for parent in (folder, *folder.parents) if parent.exists() and not parent.is_dir()]
    key = "hydra.run.dir" if job is None else "hydra.sweep.dir"
    raise_if([Problem.of(key, str(folder), f"{parent} is a file, not a folder") for parent in in_the_way])
    raise_if(api.occupied(folder))


def _check_checkpoint(folder: Path, recipe: Recipe) -> None:
    from sweepvi.engine import Checkpoint
    from sweepvi.errors import CheckpointError
    from sweepvi.recipe import config_hash
    from sweepvi.results import CHECKPOINT

    if not (folder / CHECKPOINT).exists():
        return
    try:
        taken = Checkpoint(folder / CHECKPOINT, config_hash(recipe.config)).load().meta["step"]
    except CheckpointError as error:
        raise ConfigError([Problem("resume", str(error))]) from error
    steps = recipe.settings.steps
    raise_if(
        [Problem.of("engine.steps", steps, f"the run to resume has taken {taken} already")] if steps < taken else []
    )


def _fit(recipe: Recipe, command: Command) -> Run:
    """Run a recipe in the folder that Hydra made."""
    from hydra.core.hydra_config import HydraConfig

    from sweepvi import api
    from sweepvi.progress import observer_for

    folder = Path(HydraConfig.get().runtime.output_dir)
    observer = observer_for(not command.quiet, recipe.settings.log_every)
    result = api.run(recipe, folder, observer, resume=command.resume is not None)
    log.info(telling.one(result, folder))
    return result, folder


def _status_of(result: FitResult) -> int:
    return {"finished": FINISHED, "diverged": FAILED, "interrupted": INTERRUPTED}[result.status]


def _enter_hydra(command: Command, overrides: Sequence[str], task: Callable[[Any], None]) -> int:
    """Run the task as a Hydra job; returns Hydra's own exit status, 0 if it ran the task.

    Hydra reports what a task raises in its own way, and exits; so exceptions are carried around it.
    """
    import hydra

    raised: list[BaseException] = []

    def carried(composed: Any) -> None:
        try:
            task(composed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            log.error("the fit failed", exc_info=error)
            raised.append(error)

    extra = ["--config-dir", str(command.extra)] if command.extra and not command.hydra_flags else []
    flags = [*command.hydra_flags, *extra, *(["--multirun"] if command.multirun else [])]
    before = sys.argv
    sys.argv = ["sweepvi", *flags, *overrides]
    try:
        hydra.main(config_path=str(config.conf_dir()), config_name="config", **config.version_base())(carried)()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED
    finally:
        sys.argv = before
    if raised:
        raise raised[0]
    return 0
