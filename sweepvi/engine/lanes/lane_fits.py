"""Fits in progress as lanes: recipes of one program, each with its restarts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sweepvi.diagnostics import elbo_score, r_hats
from sweepvi.distributed import LostRanksError
from sweepvi.engine.checkpoint import Snapshot, digest_of
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.fits import Fits
from sweepvi.engine.full_data import Coverage, coverage
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.compaction import moved, size_to_go_on
from sweepvi.engine.lanes.end import LaneEnd
from sweepvi.engine.lanes.ended import Ended, looked_at, waiting
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.failure import note_reasons
from sweepvi.engine.lanes.iterates import Iterates
from sweepvi.engine.lanes.lane_snapshot import courses_of, load_watches, put_courses, put_watches
from sweepvi.engine.lanes.memory import most_lanes
from sweepvi.engine.lanes.rank_lanes import ALONE, RankLanes
from sweepvi.engine.lanes.record import Course
from sweepvi.engine.lanes.starts import lane_settings
from sweepvi.engine.lanes.watching import chunk_of, look
from sweepvi.engine.modes import modes_of
from sweepvi.engine.outcome import Outcome, Restart
from sweepvi.engine.rank_engine import WORLD_SIZE, demand_as_many
from sweepvi.errors import CheckpointError
from sweepvi.recipe import Recipe
from sweepvi.stopping import Watch

LADDER = tuple(2**power for power in range(15))
"""Numbers of lanes that programs are traced and compiled for."""


@dataclass
class _Lane:
    """A fit of a recipe: a restart."""

    recipe: int
    entrant: Entrant
    ended: Ended | None = None
    """What it has come to, once its lane is another's; or when the fits are over."""
    begun: tuple[dict[str, Tensor], Course] | None = None
    """Where a checkpoint has it, until it is in a lane again."""
    watch: Watch | None = None

    def waiting(self) -> Ended:
        """What is to be said of it before it is in a lane."""
        return waiting(self.entrant, *(self.begun or ({}, None)))


class LaneFits(Fits):
    """See :class:`Fits`. More fits than lanes wait for one to be free."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        engine: EagerEngine,
        found: Captured,
        entrants: list[list[Entrant]],
        together: RankLanes = ALONE,
    ) -> None:
        settings = lane_settings(recipes[0])
        self._engine, self._captured, self._together = engine, found, together
        # Machine code does not wait for others.
        self._lane_settings = settings if together.alone else replace(settings, compile="never")
        self.settings = settings
        self._recipes = len(recipes)
        self._last_loss = float("nan")
        self._seated: list[int] = []
        self._lanes = [
            _Lane(place, entrant, watch=recipes[place].stop.watch(len(found.start)))
            for place, own in enumerate(entrants)
            for entrant in own
        ]
        self._room = min(together.ranks.gathered(most_lanes(found, settings)))
        self._at: dict[int, int] = {}
        """Lane of the cohort → number of the fit in it."""
        self._seat(list(range(len(self._lanes))), self._size(len(self._lanes)))
        self._widest = self._cohort.lanes

    def _size(self, count: int) -> int:
        """The number of lanes for so many fits: the smallest with one for each, if memory has room for it."""
        wanted = min(count, self._room, LADDER[-1])
        size = next(size for size in LADDER if size >= wanted)
        return size if size <= self._room or size == 1 else max(each for each in LADDER if each <= self._room)

    def _seat(self, order: list[int], size: int) -> None:
        """Make lanes anew, and let the first of the fits, all at their start, into them; the others wait."""
        first, self._waiting = order[:size], order[size:]
        self._at = dict(enumerate(first))
        entrants = [self._lanes[number].entrant for number in first]
        self._waves = -(-len(order) // size)
        # Lanes of one program are watched alike.
        watch = self._lanes[0].watch
        every = watch.every if watch else 0
        self._cohort = Cohort(
            self._captured, entrants, size, self._lane_settings, self.total, every=every, together=self._together
        )
        for lane, watch in self._watches.items():
            self._cohort.rate[lane] = watch.rate
        self._iterates = Iterates(size, len(self._captured.start))

    @property
    def total(self) -> int:
        """See :attr:`Fits.total`; of all waves together."""
        longest = max(lane.entrant.steps for lane in self._lanes)
        return longest * self._waves

    @property
    def step_count(self) -> int:
        """See :attr:`Fits.step_count`; of all waves together."""
        return max(self._cohort.done) if self._waves == 1 else self._cohort.steps_taken

    @property
    def running(self) -> bool:
        """See :attr:`Fits.running`."""
        return bool(self._waiting) or any(self._cohort.running)

    @property
    def last_loss(self) -> float:
        """The least of all lanes'."""
        return self._last_loss

    def trace(self) -> None:
        """Trace a step, so that a program that cannot be traced is known before the first."""
        cohort = self._cohort
        # Watches have stops of their own, but lanes that share minibatches stay in step.
        own_stops = cohort.every and not self._captured.draws.minibatches
        cohort.trace(torch.zeros(cohort.lanes, dtype=torch.float64, device=cohort.device) if own_stops else 0)

    @property
    def _watches(self) -> dict[int, Watch]:
        """Those that have not ended, by lane."""
        return {
            lane: watch
            for lane, number in self._at.items()
            if (watch := self._lanes[number].watch) is not None and not watch.done
        }

    @property
    def numbers(self) -> int:
        """How many a step computes, all lanes together; 0 before it is traced."""
        graph = self._cohort.stepping.graph
        return graph.numbers if graph is not None else 0

    @property
    def operations(self) -> int:
        """Of a step; 0 before it is traced."""
        graph = self._cohort.stepping.graph
        return graph.node_count if graph is not None else 0

    def close(self) -> None:
        """Let go of what runs in the background."""
        self._cohort.stepping.close()

    def advance(self, until: int) -> None:
        """Take a chunk of steps; let those who wait into lanes that are free, or else have no more lanes than pays."""
        if not any(self._cohort.running):
            self._refill()
        self.at_boundary = False
        last = until if self._waves == 1 else max(lane.entrant.steps for lane in self._lanes)
        if self._cohort.stepping.graph is None:
            self.trace()
        stops, most = chunk_of(self._cohort, self._watches, last) if self._cohort.every else (last, None)
        alive = self._cohort.alive
        try:
            self._cohort.advance(stops, lambda: not self.interrupt.requested, most)
        except LostRanksError:
            # The state is still that before the chunk.
            self.at_boundary = True
            raise
        if not self._together.alone:
            self._agree(alive)
        self._iterates.add(self._cohort)
        for lane in look(self._cohort, self._watches):
            self._iterates.forget(lane)
        chunk = self._cohort.record.chunks[-1]
        losses = chunk.losses[-1][chunk.moved[-1]]
        self._last_loss = float(losses.min()) if len(losses) else float("nan")
        if self._waiting:
            self._refill()
        else:
            self._compact()
        self.at_boundary = True

    def _agree(self, alive: list[bool]) -> None:
        """Tell the other ranks what only this one knows of the steps just taken, before which lanes were alive."""
        cohort = self._cohort
        note_reasons(cohort, [lane for lane, before in enumerate(alive) if before and not cohort.alive[lane]])
        if self._together.any(self.interrupt.asked, cohort.device):
            self.interrupt.agree()

    def _refill(self) -> None:
        """Let those who wait into free lanes; where lanes share minibatches, all together."""
        running, together = self._cohort.running, bool(self._captured.draws.minibatches)
        if together and any(running):
            return
        free = [lane for lane, going in enumerate(running) if not going]
        self._take_out([lane for lane in free if lane in self._at])
        entering = self._waiting[: len(free)]
        if together:
            steps = {number: self._lanes[number].waiting().steps for number in entering}
            entering = [number for number in entering if steps[number] == steps[entering[0]]]
        for lane, number in zip(free, entering, strict=False):
            self._waiting.remove(number)
            self._enter(lane, number)

    def _enter(self, lane: int, number: int) -> None:
        fit = self._lanes[number]
        self._at[lane] = number
        self._cohort.put({lane: fit.entrant})
        self._iterates.forget(lane)
        if fit.begun is not None:
            tensors, course = fit.begun
            self._cohort.load(lane, tensors, course)
            self._iterates.load(lane, tensors)
            fit.begun = None
        if fit.watch is not None:
            self._cohort.rate[lane] = fit.watch.rate
            if fit.watch.done:
                self._cohort.stop([lane])

    def _compact(self) -> None:
        """Let the lanes that run go on in fewer, where that pays."""
        cohort = self._cohort
        lanes = [lane for lane, going in enumerate(cohort.running) if going]
        if not lanes or cohort.stepping.graph is None or cohort.stepping.compiled_from is not None:
            return
        left = [steps for steps in cohort.left if steps > 0]
        size = size_to_go_on(cohort.stepping.graph, cohort.lanes, left, LADDER, cohort.device)
        if size == cohort.lanes:
            return
        self._take_out([lane for lane in self._at if lane not in lanes])
        self._cohort, self._iterates = moved(cohort, lanes, size), self._iterates.of_lanes(lanes, size)
        self._at = {place: self._at[lane] for place, lane in enumerate(lanes)}

    def demand_finite_parameters(self) -> None:
        """See :meth:`Fits.demand_finite_parameters`."""
        self._cohort.kill([lane for lane, fine in enumerate(self._cohort.finite) if not fine])

    def snapshot(self) -> Snapshot:
        """See :meth:`Fits.snapshot`; of one recipe."""
        found = self._looked_at(list(self._at))
        ends = {number: found[lane] for lane, number in self._at.items()}
        ends |= {number: self._lanes[number].waiting() for number in self._waiting}
        all_of_it = [lane.ended or ends[number] for number, lane in enumerate(self._lanes)]
        shown = next(number for number in range(len(all_of_it)) if number not in self._waiting)
        return self._snapshot(self._lanes, all_of_it, self.seconds, shown)

    def restore(self, snapshot: Snapshot) -> None:
        """See :meth:`Fits.restore`."""
        demand_as_many(snapshot, self._together.ranks.world_size)
        tensors, meta = snapshot.get("lanes")
        if meta["seeds"] != [lane.entrant.seed for lane in self._lanes]:
            raise CheckpointError("the checkpoint has other restarts")
        most = max(lane.entrant.steps for lane in self._lanes)
        for row, (number, course) in enumerate(zip(meta["begun"], courses_of(snapshot), strict=True)):
            own = {name: tensor[row : row + 1] for name, tensor in tensors.items()}
            self._lanes[number].begun = own, course
            if len(course.losses) > most:
                raise CheckpointError(f"the checkpoint has taken {len(course.losses)} steps already, more than {most}")
        load_watches(snapshot, [lane.watch for lane in self._lanes])
        try:
            self._seat_again(meta)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint does not fit: {error}") from error
        self.seconds = meta["seconds"]

    def _seat_again(self, meta: Mapping[str, Any]) -> None:
        """Let fits into as many lanes as they were in; those that have nothing left to do pass through one first."""

        def idle(number: int) -> bool:
            steps = self._lanes[number].waiting().steps
            watch = self._lanes[number].watch
            done = watch is not None and watch.done
            return done or number in meta["diverged"] or steps >= self._lanes[number].entrant.steps

        everyone = range(len(self._lanes))
        ended = [number for number in everyone if idle(number)]
        running = [number for number in [*meta["lanes"], *meta["begun"], *everyone] if number not in ended]
        running = list(dict.fromkeys(running))
        same = len(running) <= (meta["size"] or 0) <= self._room
        size = meta["size"] if same else self._size(len(running) or 1)
        self._seat([*ended, *running], size)
        self._cohort.ended(range(size))
        self._at = {}
        for entering in (ended, running):
            self._waiting = list(entering)
            while self._waiting and not any(self._cohort.running):
                self._refill()
        self._waves = meta["waves"] if same else max(1, -(-len(running) // size))
        self._cohort.steps_taken = meta["taken"] if same else max(self._cohort.done)
        self._cohort.stepping.go_on(meta["compiled_from"])

    def outcomes(self, interrupt: Interrupt, progress: Callable[[int, int], None]) -> list[Outcome]:
        """See :meth:`Fits.outcomes`."""
        self._seated = list(self._at.values())
        self._take_out(list(self._at))
        while any(self._lanes[number].begun for number in self._waiting):
            self._refill()
            self._take_out(list(self._at))
        for number in self._waiting:
            self._lanes[number].ended = self._lanes[number].waiting()
        agree = self._agreement()
        interrupt.alone = True
        scored = self._score(interrupt, progress)
        outcomes = [self._outcome(place, self._best(place)) for place in range(self._recipes)]
        for outcome in outcomes:
            if agree is not None:
                outcome.world_size, outcome.ranks_agree = self._together.ranks.world_size, agree
            if scored is not None and outcome.status == "finished":
                seen, end = scored
                outcome.data_size, outcome.score_note = seen.data_size, seen.note
                outcome.notes += [end.note] if end.note else []
                if self._together.ranks.leads and not end.is_whole(outcome.log_weights, outcome.fresh):
                    outcome.status, outcome.message = "interrupted", "interrupted while the result was scored"
        return outcomes

    def _agreement(self) -> bool | None:
        """Whether all lanes have come to the same on all ranks, to the last bit; None of one process."""
        if self._together.alone:
            return None
        own = {
            f"{number}/{name}": tensor
            for number, lane in enumerate(self._lanes)
            if lane.ended is not None
            for name, tensor in {"row": lane.ended.row, "result": lane.ended.result, **lane.ended.tensors}.items()
        }
        return len(set(self._together.ranks.gathered(digest_of(own)))) == 1

    def _score(self, interrupt: Interrupt, progress: Callable[[int, int], None]) -> tuple[Coverage, LaneEnd] | None:
        """Score the fits that are finished, and draw from the best of each recipe; None if no fit is finished."""
        engine = self._engine
        finished = [ended for lane in self._lanes if (ended := lane.ended) and ended.status == "finished"]
        leads = self._together.ranks.leads
        # Other ranks need no more than to choose the restart that rank 0 chooses.
        if not finished or not (leads or len(self._lanes) > self._recipes):
            return None
        seen = coverage(engine.programs, engine.problem, self.settings.score_minibatches)
        with seen.plates():
            end = LaneEnd(engine, self._captured, self.settings)
            for ended in finished:
                ended.log_weights = end.score(ended.result, interrupt, progress)
            for place in range(self._recipes):
                best = self._best(place).ended
                if leads and best is not None and best.status == "finished":
                    best.fresh = end.fresh(best.result, interrupt, progress)
        return seen, end

    def _of_recipe(self, place: int) -> list[_Lane]:
        return [lane for lane in self._lanes if lane.recipe == place]

    def _best(self, place: int) -> _Lane:
        """The restart with the highest ELBO; one that did not finish only if none did."""

        def rank(lane: _Lane) -> tuple[bool, float]:
            assert lane.ended is not None
            elbo = elbo_score(lane.ended.log_weights).elbo
            return lane.ended.status == "finished", float("-inf") if elbo is None else elbo

        # The first of equals, whatever their number.
        return max(self._of_recipe(place), key=rank)

    def _take_out(self, lanes: list[int]) -> None:
        """Note what the fits in these lanes have come to; the lanes are free then."""
        ended = self._looked_at(lanes)
        for lane in lanes:
            self._lanes[self._at.pop(lane)].ended = ended[lane]
        self._cohort.ended(lanes)

    def _looked_at(self, lanes: list[int]) -> dict[int, Ended]:
        """What the fits in these lanes have come to so far, by their watches' judgement."""
        found = looked_at(self._cohort, self._iterates, lanes)
        for lane, ended in found.items():
            watch = self._lanes[self._at[lane]].watch
            if watch is not None and ended.status == "finished":
                ended.stopped = watch.stopped or watch.exhausted
                ended.result = ended.result if watch.result is None else watch.result.to(ended.result)
        return found

    def _outcome(self, place: int, chosen: _Lane) -> Outcome:
        ended, all_of_it = chosen.ended, self._of_recipe(place)
        assert ended is not None
        engine = self._engine
        with engine.undone():
            engine.move_to(self._captured.unpacked(ended.result))
            fitted = engine.fitted()
            seen = ended.status == "finished" and self._together.ranks.leads
            modes = modes_of(engine, ended.fresh, self.operations) if seen else None
        share = len(all_of_it) / len(self._lanes)
        ends = [lane.ended for lane in all_of_it if lane.ended is not None]
        several = len(ends) > 1
        return Outcome(
            status=ended.status,
            steps=ended.steps,
            message=ended.message,
            losses=ended.course.losses,
            rates=ended.course.rates,
            skipped=[step for step in ended.course.skipped if step <= ended.steps],
            log_weights=ended.log_weights,
            fresh=ended.fresh,
            seconds=self.seconds * share,
            problem=engine.problem,
            fitted=fitted,
            snapshot=self._snapshot(all_of_it, ends, self.seconds * share, all_of_it.index(chosen)),
            seed=chosen.entrant.seed,
            engine="lanes",
            stopped=ended.stopped,
            compiled_from=self._cohort.stepping.compiled_from,
            notes=[note for note in (*engine.place_notes, self._cohort.stepping.note) if note],
            modes=modes,
            restarts=[
                Restart(lane.entrant.seed, end.status, end.message, end.log_weights)
                for lane, end in zip(all_of_it, ends, strict=True)
            ]
            if several
            else [],
            spread=self._spread(ends) if several else {},
        )

    def _spread(self, ends: list[Ended]) -> dict[str, Tensor]:
        """R-hat of every parameter over those restarts that finished."""
        whole = [end.iterates for end in ends if end.status == "finished"]
        if len(whole) < 2:
            return {}
        means, variances, counts = zip(*whole, strict=True)
        return self._captured.unpacked(r_hats(torch.stack(means), torch.stack(variances), min(counts)))

    def _snapshot(self, lanes: list[_Lane], ends: list[Ended], seconds: float, chosen: int) -> Snapshot:
        """What a continuation needs of some restarts; and the parameters of one, as of a fit of its own."""
        engine, mine = self._engine, ends[chosen]
        with engine.undone():
            engine.move_to(self._captured.unpacked(mine.row))
            snapshot = engine.state_snapshot()
        result, row = self._captured.unpacked(mine.result), self._captured.unpacked(mine.row)
        snapshot.put("result", {name: value for name, value in result.items() if not torch.equal(value, row[name])})
        begun = [number for number, end in enumerate(ends) if end.tensors]
        names = ends[begun[0]].tensors if begun else ()
        tensors = {name: torch.cat([ends[number].tensors[name] for number in begun]) for name in names}
        seats = {
            "seeds": [end.seed for end in ends],
            "seconds": seconds,
            "begun": begun,
            "diverged": [number for number, end in enumerate(ends) if end.status == "diverged"],
            # Of several recipes, each goes on alone.
            **(self._seats() if self._recipes == 1 else _NO_SEATS),
        }
        snapshot.put("lanes", tensors, seats)
        put_courses(snapshot, [_whole(ends[number]) for number in begun])
        put_watches(snapshot, [lane.watch for lane in lanes])
        snapshot.meta["step"] = max(end.steps for end in ends)
        snapshot.meta["engine"] = "lanes"
        if not self._together.alone:
            snapshot.meta[WORLD_SIZE] = self._together.ranks.world_size
        return snapshot

    def _seats(self) -> dict[str, Any]:
        """Which fits are in lanes, and in how many: numbers of a continuation depend on it by rounding."""
        return {
            "lanes": list(self._at.values()) or self._seated,
            "size": self._cohort.lanes,
            "waves": self._waves,
            "taken": self._cohort.steps_taken,
            "compiled_from": self._cohort.stepping.switched_at,
        }


_NO_SEATS = {"lanes": [], "size": None, "waves": 1, "taken": 0, "compiled_from": None}


def _whole(end: Ended) -> Course:
    """The course without the row of a step that diverged: a continuation takes that step anew."""
    course, steps = end.course, end.steps
    rates = {label: own[:steps] for label, own in course.rates.items()}
    return Course(course.losses[:steps], rates, [step for step in course.skipped if step <= steps])
