"""The command. Composes and checks first; enters Hydra only with a configuration that runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sweepvi import __version__, catalogue, config, telling
from sweepvi.command import Command, parse
from sweepvi.errors import ConfigError, DivergedError, SweepviError, collected, raise_if, unique

if TYPE_CHECKING:
    from sweepvi.recipe import Recipe
    from sweepvi.results import FitResult

    Run = tuple[FitResult, Path]

log = logging.getLogger("sweepvi")

FINISHED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def console() -> NoReturn:
    """Run the command line of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. Never raises: what is wrong is said in a line or a list."""
    return status_of(lambda: _run(parse(arguments)))


def status_of(run: Callable[[], int]) -> int:
    """The exit status that a command returns, or the one of what it raises, which is said in a line or a list."""
    try:
        return run()
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


def _run(command: Command) -> int:
    if command.show:
        texts = {"help": catalogue.usage, "components": catalogue.components, "version": lambda: __version__}
        print(texts[command.show]())
        return FINISHED
    from sweepvi import preflight

    if command.hydra_flags:
        overrides = preflight.composed(command, [command.overrides])[0].overrides if command.cfg else command.overrides
        return _enter_hydra(command, overrides, lambda _: None)
    return _run_many(command) if command.multirun else _run_one(command)


def _run_one(command: Command) -> int:
    from sweepvi import preflight
    from sweepvi.config.overrides import quoted

    [made] = preflight.composed(command, [command.overrides])
    recipe = preflight.checked(made, command)
    if command.resume:
        made.overrides.append(f"hydra.run.dir={quoted(str(command.resume))}")
    runs: list[Run] = []
    failed = _enter_hydra(command, made.overrides, lambda _: runs.append(_fit(recipe, command)))
    if not runs:
        return failed or FAILED
    if not command.quiet:
        print(telling.one(*runs[0]))
    return _status_of(runs[0][0])


def _run_many(command: Command) -> int:
    """Every combination of comma-separated values, one fit after another, by Hydra's own sweeper."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from sweepvi import preflight, recipe
    from sweepvi.config.overrides import forced, values_of

    variants = preflight.composed(command, list(config.combinations(command.overrides, command.extra)))
    _, problems = collected(*(partial(preflight.checked, made, command, job) for job, made in enumerate(variants)))
    raise_if(unique(problems))
    swept = {
        text.lstrip("+").partition("=")[0] for text in command.overrides if len(values_of(text, command.extra)) > 1
    }
    runs: list[tuple[FitResult, Path, str]] = []

    def job(composed: Any) -> None:
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        nodes = {str(key): node for key, node in plain.items() if key not in config.SELECTIONS}
        given = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
        label = " ".join(text for text in given if text.partition("=")[0] in swept)
        try:
            runs.append((*_fit(recipe.build(nodes), command), label))
        except DivergedError as error:
            runs.append((error.result, Path(HydraConfig.get().runtime.output_dir), label))
        if runs[-1][0].status == "interrupted":
            raise KeyboardInterrupt

    base = variants[0].overrides[: -len(variants[0].given) or None]
    failed = _enter_hydra(command, [*base, *map(forced, command.overrides)], job)
    if not command.quiet and runs:
        print(telling.many(runs))
    return failed or max((_status_of(result) for result, *_ in runs), default=FAILED)


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
            raised.append(error if isinstance(error, SweepviError) else _failed(error))

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


def _failed(error: BaseException) -> SweepviError:
    from sweepvi.loading import described

    return SweepviError(f"the fit failed: {described(error)}; the run's log has the traceback")
