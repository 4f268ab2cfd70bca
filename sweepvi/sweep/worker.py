"""A worker: a process of its own, that runs fits as it is told; ``python -m sweepvi.sweep.worker FD``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.sweep.protocol import Answer, AtRung, Done, Lost, Order, Setup, Turn

if TYPE_CHECKING:
    from sweepvi.engine.trials import Ended, Event, Kept, Refused, Task, Trials
    from sweepvi.recipe import Recipe

OPEN = 6
"""Programs that are kept open; of more, those that have nothing to do are let go."""

_NO_LANES = "lanes cannot run this fit: {}; use engine=auto or engine=eager"

CURVE = 50
"""Points of a fit's losses that are kept."""


def main() -> None:
    """Serve the controller at the other end of a socket, until it is gone."""
    # Ctrl-C is the controller's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_everything()
    serve(int(sys.argv[1]))


def import_everything() -> None:
    """Import what fits need."""
    import sweepvi.engine.eager_trials
    import sweepvi.engine.frozen.trials
    import sweepvi.engine.lanes.lane_trials  # noqa: F401


def serve(descriptor: int) -> None:
    """Run fits as the other end of a socket says, until there is none."""
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_the_controller, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        setup: Setup = connection.recv()
        _prepare(setup)
        Worker(connection, setup).run()


def _end_with_the_controller(parent: int) -> None:
    """A fit that hangs would go on for good once nobody listens any more."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _prepare(setup: Setup) -> None:
    sys.path[:] = setup.path
    if setup.memory is not None:
        import resource

        limit = int(setup.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import torch

    torch.set_num_threads(setup.threads)


@dataclass
class _Program:
    """Fits that may be lanes together."""

    waiting: deque[Order] = field(default_factory=deque)
    trials: Trials | None = None
    eager: str | None = None
    """Why its fits run one by one; None if they may be lanes."""


class Worker:
    """Runs fits of any number of programs, in turn."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection, self._setup = connection, setup
        self._programs: dict[str, _Program] = {}
        self._sizes: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._orders: dict[int, Order] = {}
        self._recipes = _Recipes(setup.given)
        self._last = False

    def run(self) -> None:
        """Take turns, for good."""
        events: list[AtRung | Done | Lost] = []
        damaged, seconds = False, 0.0
        while True:
            answer = self._tell(events, damaged, seconds)
            self._take(answer)
            began = time.perf_counter()
            events, damaged = self._work()
            seconds = time.perf_counter() - began

    def _tell(self, events: list[AtRung | Done | Lost], damaged: bool, seconds: float) -> Answer:
        opened = {name: program.trials for name, program in self._programs.items() if program.trials}
        counts = [trials.occupancy() for trials in opened.values()]
        turn = Turn(
            events=events,
            running=[key for trials in opened.values() for key in trials.running],
            free={name: max(0, trials.free - len(self._programs[name].waiting)) for name, trials in opened.items()},
            busy=sum(busy for busy, _ in counts),
            room=sum(room for _, room in counts),
            computing=seconds,
            damaged=damaged,
        )
        self._connection.send(turn)
        return self._connection.recv()

    def _take(self, answer: Answer) -> None:
        self._sizes |= answer.sizes
        self._totals |= answer.totals
        self._last = answer.last
        for order in answer.orders:
            self._orders[order.key] = order
            self._programs.setdefault(order.program, _Program()).waiting.append(order)
        dropped = set(answer.drop)
        for program in self._programs.values():
            program.waiting = deque(order for order in program.waiting if order.key not in dropped)
            if program.trials:
                program.trials.drop(dropped)

    def _work(self) -> tuple[list[AtRung | Done | Lost], bool]:
        """Take some steps of the program whose turn it is; whether this process is to be trusted no more."""
        name = self._next()
        if name is None:
            return [], False
        program = self._programs.pop(name)
        self._programs[name] = program
        try:
            was_open = program.trials is not None
            found = self._begin(name, program)
            # Of what has just been opened, it is known only now how many fits there is room for.
            if was_open and program.trials is not None and program.trials.running:
                found += program.trials.advance()
        except Exception as error:
            return self._lost(program, error), _is_fatal(error)
        if self._last and program.trials is not None and not program.waiting:
            program.trials.no_more()
        return [told for event in found if (told := self._told(event)) is not None], False

    def _next(self) -> str | None:
        """The program that has waited longest."""
        for name, program in self._programs.items():
            if program.waiting or _is_busy(program.trials):
                return name
        return None

    def _begin(self, name: str, program: _Program) -> list[Event]:
        """Let those who wait into lanes that are free."""
        events: list[Event] = []
        while program.waiting:
            if program.trials is None:
                self._let_go()
                events += self._open(name, program)
                continue
            count = min(program.trials.free, len(program.waiting))
            if not count:
                break
            tasks, failed = self._tasks([program.waiting.popleft() for _ in range(count)])
            events += [*failed, *program.trials.enter(tasks)]
        return events

    def _open(self, name: str, program: _Program) -> list[Event]:
        """Trace the program by those that wait; a first one that cannot begin has failed."""
        from sweepvi.engine.eager_trials import EagerTrials
        from sweepvi.engine.frozen.trials import FrozenTrials
        from sweepvi.engine.lanes.captured import NotCapturedError
        from sweepvi.engine.lanes.lane_trials import LaneTrials
        from sweepvi.engine.trials import Failed
        from sweepvi.errors import ConfigError
        from sweepvi.optim import Minimizer
        from sweepvi.settings import AutoSettings, LaneSettings

        value, draws = self._setup.rung_value, self._setup.rung_draws
        order = program.waiting[0]
        tasks, failed = self._tasks([order])
        if failed:
            program.waiting.popleft()
            return failed
        settings = tasks[0].recipe.settings
        try:
            if program.eager is not None or not isinstance(settings, LaneSettings):
                notes = [] if program.eager is None else [f"ran on the eager engine: {program.eager}"]
                program.trials = EagerTrials(notes, _rung_value(value), draws)
                return []
            if isinstance(tasks[0].recipe.optimizer, Minimizer):
                program.trials = FrozenTrials()
                return []
            size, total = self._sizes.get(name, len(program.waiting)), self._totals.get(name, settings.steps)
            program.trials = LaneTrials(tasks, size, total, _rung_value(value), draws)
        except NotCapturedError as error:
            if isinstance(settings, AutoSettings):
                program.eager = str(error)
                return []
            program.waiting.popleft()
            return [Failed(order.key, _NO_LANES.format(error))]
        except ConfigError as error:
            program.waiting.popleft()
            return [Failed(order.key, str(error))]
        return []

    def _let_go(self) -> None:
        """Close programs that have nothing to do, but for the last few."""
        idle = [name for name, program in self._programs.items() if program.trials and not _is_busy(program.trials)]
        opened = sum(program.trials is not None for program in self._programs.values())
        for name in idle[: max(0, opened - OPEN + 1)]:
            program = self._programs[name]
            if program.trials is not None and not program.waiting:
                program.trials.close()
                program.trials = None

    def _tasks(self, orders: list[Order]) -> tuple[list[Task], list[Event]]:
        from sweepvi.engine.score import SCORE_SEED
        from sweepvi.engine.trials import Failed, Task
        from sweepvi.errors import ConfigError

        tasks, failed = [], []
        for order in orders:
            try:
                recipe = self._recipes.of(order)
            except ConfigError as error:
                failed.append(Failed(order.key, str(error)))
                continue
            seed = SCORE_SEED if order.score_seed is None else order.score_seed
            heldout = "heldout" in self._setup.objectives
            kept = order.folder is not None
            tasks.append(Task(order.key, recipe, order.rungs, order.score_draws, seed, heldout, kept))
        return tasks, failed

    def _refused(self, event: Refused) -> Lost | None:
        """A fit that cannot be a lane beside the others is a program of its own, if the settings leave that open."""
        from sweepvi.settings import AutoSettings

        order = self._orders[event.key]
        if not isinstance(self._recipes.of(order).settings, AutoSettings):
            return Lost(event.key, _NO_LANES.format(event.reason), alone=True)
        program = self._programs.setdefault(f"{order.program}, trial {event.key}", _Program())
        program.waiting.append(order)
        return None

    def _lost(self, program: _Program, error: BaseException) -> list[AtRung | Done | Lost]:
        """What has gone down with a program, or waits for it."""
        from sweepvi.loading import described

        orders = [self._orders[key] for key in (program.trials.running if program.trials else [])]
        orders += program.waiting
        program.trials = None
        program.waiting.clear()
        return [Lost(order.key, described(error), alone=len(orders) == 1) for order in orders]

    def _told(self, event: Event) -> AtRung | Done | Lost | None:
        from sweepvi.engine.trials import Ended, Reached, Refused

        if isinstance(event, Refused):
            return self._refused(event)
        if isinstance(event, Reached):
            return AtRung(event.key, event.rung, event.step, event.value, event.seconds)
        order = self._orders.pop(event.key, None)
        if isinstance(event, Ended):
            done = _summed_up(event, self._setup)
            if event.kept is not None and order is not None and order.folder is not None:
                _save(order, event, event.kept, done)
            return done
        return Lost(event.key, event.message, alone=True)


class _Recipes:
    """Recipes of configurations; what runs in them is loaded once for each program."""

    def __init__(self, given: bytes | None) -> None:
        self._given: Mapping[str, Any] = {}
        if given is not None:
            import cloudpickle

            self._given = cloudpickle.loads(given)
        self._first: dict[str, Recipe] = {}

    def of(self, order: Order) -> Recipe:
        """An order's; ``ConfigError`` says what is wrong with it."""
        from sweepvi import recipe

        first = self._first.get(order.program)
        known: dict[str, Any] = {}
        if first is not None:
            known["model"] = first.source.problem
            if first.config["guide"]["name"] == "custom":
                known["guide"] = first.source.guide
        made = recipe.build(order.config, {**self._given, **known})
        self._first.setdefault(order.program, made)
        return made


def _is_busy(trials: Trials | None) -> bool:
    return trials is not None and bool(trials.running)


def _is_fatal(error: BaseException) -> bool:
    """Whether a process cannot be trusted after an error: a device's context is lost, or memory was not to be had."""
    return isinstance(error, MemoryError) or "CUDA" in str(error) or "alloc" in str(error).lower()


def _rung_value(name: str) -> Any:
    return name


def _summed_up(event: Ended, setup: Setup) -> Done:
    from sweepvi.diagnostics import elbo_score, pareto_k, predictive_score

    finished, target = event.status == "finished", setup.target
    predictive = predictive_score(event.heldout) if finished and event.heldout is not None else None
    score = elbo_score(event.log_weights)
    message = event.message
    if event.status == "finished" and score.nonfinite:
        message = f"no ELBO: {score.nonfinite} of {event.log_weights.numel()} fresh draws are not finite"
    return Done(
        key=event.key,
        status=event.status,
        message=message,
        steps=event.steps,
        seconds=event.seconds,
        elbo=score.elbo if event.status == "finished" else None,
        elbo_se=score.standard_error if event.status == "finished" else None,
        curve=list(_curve(event.losses)),
        engine=event.engine,
        notes=event.notes,
        k_hat=pareto_k(event.log_weights) if finished and "k_hat" in setup.objectives else None,
        target_seconds=event.seconds if target is None else _seconds_to(target, event.losses, event.seconds),
        heldout=predictive.elbo if predictive else None,
        heldout_se=predictive.standard_error if predictive else None,
    )


def _save(order: Order, event: Ended, kept: Kept, done: Done) -> None:
    """Save a fit as a run folder; over one that a worker has left which died before it could say so."""
    from sweepvi.provenance import provenance
    from sweepvi.results import FitResult

    assert order.folder is not None
    FitResult(
        status=event.status,
        message=done.message,
        losses=event.losses,
        rates=kept.rates,
        params=kept.params,
        elbo=done.elbo,
        elbo_se=done.elbo_se,
        data_size=kept.data_size,
        steps=event.steps,
        seconds=event.seconds,
        seed=order.config["engine"]["seed"],
        engine=event.engine,
        config=dict(order.config),
        skipped=kept.skipped,
        notes=event.notes,
        provenance=provenance(),
    ).write(Path(order.folder))


def _curve(losses: Any) -> Iterator[tuple[int, float]]:
    """Means of losses over stretches that become longer with the steps: what falls fast at first is seen."""
    count = len(losses)
    ends = sorted({min(count, max(1, round(count ** (place / CURVE)))) for place in range(1, CURVE + 1)})
    start = 0
    for end in ends:
        if end > start:
            yield end, float(losses[start:end].mean())
        start = end


def _seconds_to(target: float, losses: Any, seconds: float, window: int = 50) -> float | None:
    """Seconds after which the mean loss of the last steps says that the ELBO is at the target."""
    if len(losses) < window:
        return None
    means = losses.unfold(0, window, 1).mean(-1)
    hits = (-means >= target).nonzero().flatten()
    return seconds * (int(hits[0]) + window) / len(losses) if len(hits) else None


if __name__ == "__main__":
    main()
