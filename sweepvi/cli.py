"""The command. Composes and checks first; enters Hydra only with a configuration that runs."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sweepvi import __version__, catalogue, config, launching, telling
from sweepvi.command import Command, parse
from sweepvi.errors import ConfigError, DivergedError, SweepviError

if TYPE_CHECKING:
    from sweepvi.config import Composition
    from sweepvi.engine import Observer
    from sweepvi.launching import Agent
    from sweepvi.preset import Ladder
    from sweepvi.recipe import Recipe
    from sweepvi.results import FitResult
    from sweepvi.sweep.plan import Plan
    from sweepvi.sweep.running import SweepResult

    Run = tuple[FitResult, Path]

log = logging.getLogger("sweepvi")

FINISHED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# libgomp reads it when torch is loaded. By default threads that wait for each other occupy the processor for a
# millisecond, at every operation: beside other work, two threads were sixty times as slow as one.
WAITING = ("GOMP_SPINCOUNT", "10000")


def console() -> NoReturn:
    """Run the command line of this process, and exit with its status.

    At once: what Python does at its end, object by object, takes most of a second with torch.
    """
    os.environ.setdefault(*WAITING)
    status = main(sys.argv[1:])
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. Never raises: what is wrong is said in a line or a list."""
    return status_of(lambda: _run(parse(arguments)))


def status_of(run: Callable[[], int]) -> int:
    """The exit status that a command returns, or the one of what it raises, which is said in a line or a list."""
    try:
        return run()
    except ConfigError as error:
        print(f"sweepvi{_of_rank()}: {error}", file=sys.stderr)
        return BAD_INPUT
    except SweepviError as error:
        print(f"sweepvi{_of_rank()}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sweepvi: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _of_rank() -> str:
    """Which of several processes speaks; nothing where there is one."""
    rank, size = os.environ.get("RANK", os.environ.get("HOROVOD_RANK")), os.environ.get("WORLD_SIZE", "several")
    return "" if rank is None or size == "1" else f" (rank {rank})"


def _run(command: Command) -> int:
    if command.show:
        texts = {"help": catalogue.usage, "components": catalogue.components, "version": lambda: __version__}
        print(texts[command.show]())
        return FINISHED
    from sweepvi import preflight

    if command.hydra_flags:
        overrides = preflight.composed(command)[0].overrides if command.cfg else command.overrides
        return _enter_hydra(command, overrides, lambda _: None)
    return _run_many(command) if command.multirun else _run_one(command)


def _run_one(command: Command) -> int:
    from sweepvi import preflight, preset
    from sweepvi.config.overrides import quoted

    made, said = preflight.composed(command)
    ready = preflight.checked(made, command) if said is None else preflight.climbable(made, command, said)
    if command.resume:
        made.overrides.append(f"hydra.run.dir={quoted(str(command.resume))}")
    if not isinstance(ready, preset.Ladder) and not ready.distributed.leads:
        return _follow(ready)
    runs: list[Run] = []
    failed = _enter_hydra(command, made.overrides, lambda _: runs.append(_fit(ready, command)))
    if not runs:
        return failed or FAILED
    if not command.quiet:
        print(telling.one(*runs[0]))
    return _status_of(runs[0][0])


def _follow(ready: Recipe) -> int:
    """Take part in a fit that rank 0 runs and writes; what fails here, only this process can say.

    How the fit ended is for rank 0 to say: whoever started the processes ends all when one of them reports a failure,
    and rank 0 has its files still to write.
    """
    from sweepvi import runs

    try:
        runs.run(ready, None)
        return FINISHED
    except DivergedError:
        return FINISHED
    except SweepviError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise _failed(error, "the fit", "the traceback is above") from error


def _run_many(command: Command) -> int:
    """A sweep, as one job of Hydra's."""
    from hydra.core.hydra_config import HydraConfig

    from sweepvi import preflight
    from sweepvi.config.overrides import quoted
    from sweepvi.sweep.slots import Crew

    results: list[SweepResult] = []
    # Workers import what they need while the plan is made.
    with Crew.early(command.overrides) as crew:
        plan, made = preflight.planned(command)
        folder = preflight.sweep_folder(plan, made)
        if (launcher := preflight.launcher_of(made)) != launching.BASIC:
            return _launch(command, made, launching.agent_of(command.arguments, folder), folder, launcher, plan)

        def job(_: Any) -> None:
            from sweepvi.sweep.running import run

            results.append(run(plan, Path(HydraConfig.get().runtime.output_dir), _view(command), crew))

        # The plan composes the trials; all that is left for Hydra is the folder and the log.
        hydra = [text for text in made.given if text.lstrip("+~").startswith("hydra")]
        failed = _enter_hydra(command, [*hydra, f"hydra.sweep.dir={quoted(str(folder))}"], job, "the sweep")
    if not results:
        return failed or FAILED
    if not command.quiet and results[0].text:
        print(results[0].text)
    return results[0].exit_status


def _launch(command: Command, made: Composition, agent: Agent, folder: Path, launcher: str, plan: Plan) -> int:
    """A sweep, as jobs of a Hydra launcher's; returns the worst of their statuses."""
    from sweepvi.config.overrides import quoted

    count = plan.settings.agents
    task = launching.task_of(agent, count)
    if not command.quiet:
        print(f"starting {count} agent{'s' * (count > 1)} by hydra/launcher={launcher}", file=sys.stderr)
    hydra = [text for text in made.given if text.lstrip("+~").startswith("hydra")]
    failed = _enter_hydra(command, [*hydra, f"hydra.sweep.dir={quoted(str(folder))}"], task, None)
    returned = vars(task)["returned"]
    if failed or len(returned) != count:
        return failed or FAILED
    if not command.quiet:
        print(f"saved in {telling.shown(folder)}")
    return max(returned)


def _view(command: Command) -> Any:
    from sweepvi.sweep.live import view_for

    return view_for(not command.quiet)


def _fit(ready: Recipe | Ladder, command: Command) -> Run:
    """Run what is ready in the folder that Hydra made."""
    from hydra.core.hydra_config import HydraConfig

    from sweepvi import preflight, preset, runs
    from sweepvi.progress import observer_for

    def observer(recipe: Recipe) -> Observer:
        return observer_for(not command.quiet, recipe.settings.log_every)

    folder = Path(HydraConfig.get().runtime.output_dir)
    resume = command.resume is not None or preflight.restarts(folder)
    if isinstance(ready, preset.Ladder):
        result = preset.climb(ready, folder, observer, resume)
    else:
        result = runs.run(ready, folder, observer(ready), resume)
    log.info(telling.one(result, folder))
    return result, folder


def _status_of(result: FitResult) -> int:
    if any(attempt["status"] == "interrupted" for attempt in result.attempts):
        return INTERRUPTED
    return {"finished": FINISHED, "diverged": FAILED, "interrupted": INTERRUPTED}[result.status]


def _enter_hydra(
    command: Command, overrides: Sequence[str], task: Callable[[Any], Any], what: str | None = "the fit"
) -> int:
    """Run the task, ``what`` in words, as a Hydra job; returns Hydra's own exit status, 0 if it ran the task.

    None is a task that runs elsewhere, and has to be sent there as it is. Hydra reports what a task raises in its own
    way, and exits; so exceptions are carried around it.
    """
    import hydra

    raised: list[BaseException] = []

    def carried(composed: Any) -> None:
        try:
            task(composed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            log.error("%s failed", what, exc_info=error)
            raised.append(error if isinstance(error, SweepviError) else _failed(error, str(what)))

    extra = ["--config-dir", str(command.extra)] if command.extra and not command.hydra_flags else []
    flags = [*command.hydra_flags, *extra, *(["--multirun"] if command.multirun else [])]
    before = sys.argv
    sys.argv = ["sweepvi", *flags, *overrides]
    try:
        run = task if what is None else carried
        hydra.main(config_path=str(config.conf_dir()), config_name="config", **config.version_base())(run)()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED
    finally:
        sys.argv = before
    if raised:
        raise raised[0]
    return 0


def _failed(error: BaseException, what: str, where: str = "the log in its folder has the traceback") -> SweepviError:
    from sweepvi.loading import described

    return SweepviError(f"{what} failed: {described(error)}; {where}")
