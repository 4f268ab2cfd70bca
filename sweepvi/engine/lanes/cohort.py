"""Lanes in progress: fits of one program that advance together, a chunk of steps at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.memory import CHUNK, NOISE
from sweepvi.engine.lanes.minibatches import filled
from sweepvi.engine.lanes.rank_lanes import ALONE, RankLanes
from sweepvi.engine.lanes.record import Chunk, Course, Record
from sweepvi.engine.lanes.schedules import Schedules, schedules_of
from sweepvi.engine.lanes.step import LaneNumbers, LaneState, Seen, Step
from sweepvi.engine.lanes.stepping import ChunkInput, Stepping, Stop
from sweepvi.engine.lanes.update import Plan, Update, form
from sweepvi.settings import LaneSettings

EVALUATION, EVALUATED = 2, 1 << 31
"""The stream of noise of evaluations; and, for minibatches, the first of their numbers."""

EVALUATED_BYTES = 1 << 27
"""Memory that evaluations may take at a time, about."""


class Cohort:
    """Lanes of one program, each with parameters, optimizer, schedule, seed and length of its own.

    A lane that has ended, or diverged, stays as it is: it takes no further step and disturbs nobody.

    Args:
        captured: the program's loss.
        entrants: the fits, one a lane; lanes beyond them stay empty.
        lanes: how many lanes there are.
        settings: of noise, minibatches and compiling.
        total: steps after which its last lane will have ended, whatever lanes take part.
        later: plans of the forms that fits may have which enter later.
        every: steps after which lanes are looked at that are watched; 0 where nobody watches.
        together: with whom the lanes take their steps.

    """

    def __init__(
        self,
        captured: Captured,
        entrants: Sequence[Entrant],
        lanes: int,
        settings: LaneSettings,
        total: int,
        later: Sequence[Plan] = (),
        every: int = 0,
        together: RankLanes = ALONE,
    ) -> None:
        self.captured, self.lanes, self.settings, self.total = captured, lanes, settings, total
        self.every, self.together = every, together
        self.device = captured.start.device
        padded = [*entrants, *[entrants[0]] * (lanes - len(entrants))]
        self.entrants: list[Entrant | None] = [*entrants, *[None] * (lanes - len(entrants))]
        plans = [entrant.plan for entrant in padded]
        self.update = Update(plans, captured.shapes, self.device, later)
        self.seeds = torch.tensor([entrant.seed for entrant in padded], device=self.device)
        self.numbers = LaneNumbers(
            last=self._column([float(entrant.steps) for entrant in padded]),
            skips=torch.tensor([[entrant.skips] for entrant in padded], device=self.device),
            estimator={
                place: self._column([entrant.numbers[place] for entrant in padded]).squeeze(-1)
                for place in captured.numbers
            },
        )
        self.state = self._start(torch.stack([entrant.row for entrant in padded]), torch.arange(lanes))
        self.state.alive[len(entrants) :] = False
        self.schedules: list[list[Schedules]] = []
        self._schedule()
        self.record = Record(lanes)
        self.rate = torch.ones(lanes, dtype=torch.float64, device=self.device)
        """Factors on step sizes, beside the schedules': shape [K]."""
        self.steps_taken = 0
        """Steps that the cohort has taken since it was made, whatever lanes took part."""
        self.stops: list[Stop] = []
        """Where lanes stood in the last :meth:`advance`."""
        self.stepping = Stepping(Step(captured, self.update, self.numbers, together), settings, total)
        self.reasons: dict[int, str] = {}
        """Why lanes have diverged, of those whose reason is another rank's."""
        self.own_stops = False
        """Whether each lane stops at a step of its own; known once the step is traced."""

    def put(self, entrants: Mapping[int, Entrant]) -> None:
        """Let lanes be other fits, from their start; no other lane notices.

        Raises ``KeyError``, before anything is changed, if an optimizer's form was not known when the cohort was made.
        """
        if any(form(entrant.plan) not in self.update.forms for entrant in entrants.values()):
            raise KeyError("no plan of this form was known")
        for lane, entrant in entrants.items():
            self._take(lane, entrant)
        lanes = list(entrants)
        self._put(self._start(torch.stack([each.row for each in entrants.values()]), torch.tensor(lanes)), lanes)
        for lane in lanes:
            self.record.start(lane)
        self.stepping.hold()

    def _take(self, lane: int, entrant: Entrant) -> None:
        """Let a lane have an entrant's numbers."""
        self.update.put(lane, entrant.plan)
        place = self.update.forms.index(form(entrant.plan))
        for schedules, group in zip(self.schedules[place], entrant.plan, strict=True):
            schedules.put(lane, group.schedule)
        self.entrants[lane] = entrant
        self.reasons.pop(lane, None)
        self.seeds[lane] = entrant.seed
        self.numbers.last[lane], self.numbers.skips[lane] = float(entrant.steps), entrant.skips
        for at, number in entrant.numbers.items():
            self.numbers.estimator[at][lane] = number

    @property
    def left(self) -> list[int]:
        """Steps that each lane has left to take."""
        left = torch.where(self.state.alive, self.numbers.last - self.state.done, 0.0)
        return [int(steps) for steps in left.squeeze(-1).tolist()]

    @property
    def running(self) -> list[bool]:
        """Of each lane: whether it has steps left to take."""
        return [steps > 0 for steps in self.left]

    @property
    def alive(self) -> list[bool]:
        """Of each lane: whether it has not diverged."""
        return self.state.alive.squeeze(-1).tolist()

    @property
    def finite(self) -> list[bool]:
        """Of each lane: whether its parameters are finite."""
        return torch.isfinite(self.state.arena).all(-1).tolist()

    @property
    def done(self) -> list[int]:
        """Steps that each lane has taken, those left out among them."""
        return [int(done) for done in self.state.done.squeeze(-1).tolist()]

    def trace(self, until: int | Tensor = 0) -> None:
        """Trace the step before the first; whatever the program's own code raises is raised here.

        ``until`` is of the kind that :meth:`advance` will be given.
        """
        self.own_stops = isinstance(until, Tensor)
        self.stepping.trace(self.state, self._chunk(self.state.done.squeeze(-1)[None, :], until), self.steps_taken)

    def advance(self, until: int | Tensor, waiting: Callable[[], bool] = lambda: True, most: int | None = None) -> None:
        """Take the steps of one chunk; no lane takes a step after ``until``.

        Args:
            until: number of a step, or each lane's: float64, shape [K], and not sometimes this and sometimes that.
            waiting: whether to wait for a compiler, where the settings say that its result is to be used.
            most: steps, at most; None is a chunk.

        """
        if self.stepping.graph is None:
            self.trace(until)
        done, last = self.state.done.squeeze(-1), self.numbers.last.squeeze(-1)
        ends = torch.clamp(last, max=float(until)) if isinstance(until, int) else torch.minimum(last, until)
        goes_on = self.state.alive.squeeze(-1) & (done < ends)
        # A lane that takes no step must not be why lanes are not in step.
        done = torch.where(goes_on, done, done[goes_on][0])
        left = int((ends - done)[goes_on].max())
        whole = self._chunk_length()
        length = self.stepping.length(self.steps_taken, left if most is None else min(left, most), whole)
        rounded = -(-length // whole) * whole if self.stepping.wants_whole_chunks else length
        rows = torch.arange(rounded, device=self.device)
        # No lane takes the steps beyond ``length``, and their numbers are of no account.
        counts = done[None, :] + rows.clamp(max=length - 1).double()[:, None]
        chunk = self._chunk(counts, until)
        self.state, seen, self.stops = self.stepping(self.state, chunk, length, self.steps_taken, waiting)
        self.steps_taken += length
        self._note(seen, counts[:length], chunk.part(0, length).factors)

    def ended(self, lanes: Sequence[int]) -> None:
        """Lanes whose fits have been taken out: they stay empty."""
        for lane in lanes:
            self.entrants[lane] = None
        self.kill(lanes)

    def stop(self, lanes: Sequence[int]) -> None:
        """Lanes whose fits are done before they have taken all their steps."""
        for lane in lanes:
            self.numbers.last[lane] = self.state.done[lane]
        self.stepping.hold()

    def forget_means(self, lane: int) -> tuple[Tensor, float]:
        """Means of a lane's parameters and losses since this was last called: shape [D], on the CPU."""
        means = self.state.means
        found = means["arena"][lane].cpu().clone(), float(means["loss"][lane])
        for mean in means.values():
            mean[lane] = 0.0
        return found

    def kill(self, lanes: Sequence[int]) -> None:
        """Lanes that have diverged by another's judgement."""
        for lane in lanes:
            self.state.alive[lane] = False

    def results(self) -> Tensor:
        """What each lane's optimizer has found, which for those that average is the average: shape [K, D]."""
        with torch.no_grad():
            return self.update.evaluated(self.state.arena, self.state.slots)

    def course(self, lane: int) -> Course:
        """A lane's steps so far."""
        plan = self.update.plans[lane]
        return self.record.course(lane, int(self.update.index[lane]), [group.label for group in plan])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """What each lane's next step would follow, on this rank: gradients [K, D], and the losses, [K]."""
        given = self.stepping.noise(self._chunk(self.state.done.squeeze(-1)[None, :], 0))
        noise = {sort: rows[0] for sort, rows in given.noise.items()}
        gradient, loss, _ = self.captured.gradients(
            self.state.arena, self.state.estimator, self.numbers.estimator, noise, [row[0] for row in given.rows]
        )
        return gradient, loss

    def losses(self, lane: int, points: Tensor, first: int, draws: int) -> Tensor:
        """A lane's loss at some points, on draws that no step takes, and the same at all points.

        It does not depend on the lanes beside it, nor on how many there are. Of several ranks, it is the average.

        Args:
            lane: whose seed and numbers count.
            points: parameters, shape [P, D].
            first: number of the first draw.
            draws: how many.

        Returns:
            float64, shape [P, draws].

        """
        fixed = self.settings.noise == "fixed"
        # Where all steps have the same draws, these have too.
        numbers = torch.arange(first, first + (1 if fixed else draws), device=self.device)
        parts = numbers.split(max(1, EVALUATED_BYTES // (len(points) * max(1, self.captured.lane_bytes))))
        found = [self._losses(lane, points.to(self.state.arena), part) for part in parts]
        return torch.cat(found, -1).double().expand(-1, draws)

    def _losses(self, lane: int, points: Tensor, numbers: Tensor) -> Tensor:
        """Of the draws of these numbers, int64 [T]: shape [P, T]."""
        draws, count = self.captured.draws, len(points) * len(numbers)
        stream = self.together.noise_stream(0 if self.settings.noise == "fixed" else EVALUATION)
        seed, fixed = self.seeds[lane : lane + 1], self.settings.noise == "fixed"
        noise = draws.noise.filled(seed, torch.zeros_like(numbers) if fixed else numbers, stream)
        minibatches = filled(draws.minibatches, self.settings.data_seed, numbers + EVALUATED)
        losses = self.captured.losses(
            points.repeat_interleave(len(numbers), 0),
            {name: value[lane].expand(count, *value.shape[1:]) for name, value in self.state.estimator.items()},
            {name: value[lane].expand(count) for name, value in self.numbers.estimator.items()},
            {sort: rows[:, 0].repeat(len(points), 1) for sort, rows in noise.items()},
            [rows.repeat(len(points), 1) for rows in minibatches],
        )
        return self.together.average(losses.view(len(points), len(numbers)))

    def tensors_of(self, lane: int) -> dict[str, Tensor]:
        """The state of a lane, its schedules' included, by name: copies with a leading dimension of 1."""
        form = int(self.update.index[lane])
        leaves, _ = pytree.tree_flatten(self._of_lane(lane))
        named = {f"{place}": leaf.clone() for place, leaf in enumerate(leaves)}
        for number, schedules in enumerate(self.schedules[form]):
            named |= {f"schedule/{number}/{name}": value[None] for name, value in schedules.states[lane].items()}
        return named

    def load(self, lane: int, tensors: dict[str, Tensor], course: Course) -> None:
        """Put a lane into the state of :meth:`tensors_of`, after these steps.

        Raises ``ValueError`` if that is of a lane with other parameters or optimizers.
        """
        form = int(self.update.index[lane])
        own, spec = pytree.tree_flatten(self._of_lane(lane))
        found = [tensors.get(f"{place}") for place in range(len(own))]
        if any(leaf is None or leaf.shape != mine.shape for leaf, mine in zip(found, own, strict=True)):
            raise ValueError("the state is of other parameters or optimizers")
        own = pytree.tree_unflatten([leaf.to(self.device) for leaf in found if leaf is not None], spec)
        # Of optimizers of other forms, nothing is known, and nobody reads it.
        slots = [*self._of_lanes([lane]).slots]
        slots[form] = own.slots[0]
        self._put(replace(own, slots=slots), [lane])
        for name, value in tensors.items():
            kind, _, path = name.partition("/")
            if kind == "schedule":
                number, entry = path.split("/", 1)
                self.schedules[form][int(number)].states[lane][entry] = value[0]
        self.record.start(lane, course)

    def _start(self, rows: Tensor, lanes: Tensor) -> LaneState:
        count = len(rows)
        lanes = lanes.to(self.device)
        return LaneState(
            arena=rows,
            slots=self.update.init(rows, lanes),
            estimator={name: value.expand(count, *value.shape).clone() for name, value in self.captured.state.items()},
            done=self._column([0.0] * count),
            updates=self._column([0.0] * count),
            in_a_row=self._column([0.0] * count),
            alive=torch.ones(count, 1, dtype=torch.bool, device=self.device),
            means=self._no_means(rows) if self.every else {},
        )

    def _no_means(self, rows: Tensor) -> dict[str, Tensor]:
        none = self._column([0.0] * len(rows))
        return {"arena": torch.zeros_like(rows), "loss": none, "count": none.clone()}

    def _put(self, state: LaneState, lanes: list[int]) -> None:
        index = torch.tensor(lanes, device=self.device)

        def placed(mine: Tensor, other: Tensor) -> Tensor:
            return mine.index_copy(0, index, other)

        self.state = pytree.tree_map(placed, self.state, state)

    def _of_lanes(self, lanes: Sequence[int]) -> LaneState:
        index = torch.tensor(list(lanes), device=self.device)
        return pytree.tree_map(lambda leaf: leaf.index_select(0, index), self.state)

    def _of_lane(self, lane: int) -> LaneState:
        return self._of_lanes([lane]).of_forms([int(self.update.index[lane])])

    def _schedule(self) -> None:
        plans, update = self.update.plans, self.update
        for place in range(len(update.forms)):
            own = (update.index.squeeze(-1) == place).tolist()
            self.schedules.append(schedules_of(plans, update.models[place], own, self.device))

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)[:, None]

    @property
    def _follow_the_loss(self) -> bool:
        return any(schedules.follow_the_loss for groups in self.schedules for schedules in groups)

    def _chunk_length(self) -> int:
        if self._follow_the_loss:
            return 1
        numbers = max(1, sum(self.captured.draws.noise.taken.values()))
        length = max(1, min(CHUNK, NOISE // (numbers * self.lanes)))
        # Looks are at multiples of ``every``: chunks that end there waste nothing.
        return -(-self.every // -(-self.every // length)) if self.every else length

    def _chunk(self, counts: Tensor, until: int | Tensor) -> ChunkInput:
        """What is handed into the steps after ``counts`` steps, shape [T, K]."""
        ends = torch.as_tensor(until, dtype=torch.float64, device=self.device).view(1, -1, 1)
        in_step = bool((counts == counts[:, :1]).all())
        steps = counts.long()
        return ChunkInput(
            seeds=self.seeds,
            steps=steps,
            rows=self.together.minibatches(
                self.captured.draws.minibatches, self.settings.data_seed, steps[:, 0] if in_step else steps
            ),
            factors=[
                [(schedules.factors(counts) * self.rate)[..., None] for schedules in groups]
                for groups in self.schedules
            ],
            until=ends.expand(len(counts), -1, 1).contiguous(),
        )

    def _note(self, seen: Seen, counts: Tensor, factors: list[list[Tensor]]) -> None:
        found = iter(seen.sizes)
        rates = []
        for place, sizes in enumerate(self.update.sizes(self.state.slots)):
            own = []
            for group, size in enumerate(sizes):
                rate = self.update.rate(place, group, counts + 1) * factors[place][group].squeeze(-1)
                own.append((rate if size is None else rate * next(found).squeeze(-1)).cpu())
            rates.append(own)
        chunk = Chunk(seen.loss.double().cpu(), seen.ran.cpu(), seen.moved.cpu(), rates)
        self.record.chunks.append(chunk)
        if self._follow_the_loss:
            self._observe(chunk, counts)

    def _observe(self, chunk: Chunk, counts: Tensor) -> None:
        for lane in range(self.lanes):
            for schedules in self.schedules[int(self.update.index[lane])]:
                for row in range(len(chunk.losses)):
                    if chunk.ran[row, lane]:
                        loss = float(chunk.losses[row, lane]) if chunk.moved[row, lane] else float("nan")
                        schedules.observe(lane, int(counts[row, lane]), loss)
