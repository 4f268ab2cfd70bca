"""A fit's loss as a pure function of an arena, checked against the estimator as it is."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.func import vmap

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.lanes.evaluation import Evaluated, Evaluation
from sweepvi.engine.lanes.memory import Peak
from sweepvi.engine.lanes.minibatches import GivenMinibatches, Minibatch, RecordedMinibatches, filled
from sweepvi.engine.lanes.noise import NoiseLayout, Sort
from sweepvi.engine.lanes.randomness import Given, Recorded
from sweepvi.engine.particles import at_most, separate
from sweepvi.estimators.sites import distribution_name
from sweepvi.loading import is_the_users, message_of
from sweepvi.private import constraints_table, gradient_and_rest, transformable
from sweepvi.random_state import raw_random_state, set_raw_random_state

RECORDING_SEED = 1

Found = TypeVar("Found")


class NotCapturedError(Exception):
    """A fit cannot be made a pure function; the message says why, in one line."""


@dataclass(frozen=True)
class Draws:
    """All that a program draws in one run."""

    noise: NoiseLayout
    minibatches: list[Minibatch]

    @staticmethod
    def of(function: Callable[[], Found]) -> tuple[Found, Draws]:
        """Those of a function, and what it returns; ``NotCapturedError`` if it draws in a way that is not known."""
        with _Unseen() as unseen, RecordedMinibatches() as choices, Recorded(RECORDING_SEED) as recorded:
            found = function()
        unseen.demand_none()
        return found, Draws(NoiseLayout(recorded.draws), choices.choices)

    def repeated(self, times: int) -> Draws:
        """Those of several such runs, one after another; of runs without minibatches."""
        return Draws(NoiseLayout(self.noise.draws * times), self.minibatches)

    def served(self, function: Callable[[], Found], noise: Mapping[Sort, Tensor], rows: list[Tensor]) -> Found:
        """What a function returns that draws these numbers (of one lane and step: shape [numbers] by sort)."""
        with GivenMinibatches(rows), Given(self.noise.of_lane(noise)) as given:
            found = function()
        given.demand_all_taken()
        return found


@dataclass(frozen=True)
class Captured:
    """A pure function, and what it takes."""

    evaluation: Evaluation
    shapes: dict[str, torch.Size]
    """Parameter name → shape, in the order of the arena's columns."""
    start: Tensor
    """Parameters where the fit starts: shape [D]."""
    state: dict[str, Tensor]
    """The estimator's state where the fit starts, by name."""
    numbers: tuple[str, ...]
    """Where the estimator's object has numbers that may differ between lanes."""
    draws: Draws
    lane_bytes: int
    """Memory that a lane needs while its gradient is computed."""
    of_particle: Draws | None = None
    """What each of several particles draws, where ``evaluation`` is that of one; None where it is of all."""

    def unpacked(self, row: Tensor) -> dict[str, Tensor]:
        """Parameters by name, of one lane's row of the arena, shape [D]."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = row.split(sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def packed(self, params: Mapping[str, Tensor]) -> Tensor:
        """A row of the arena, shape [D]; ``KeyError`` or ``ValueError`` if these are other parameters."""
        if {name: param.shape for name, param in params.items()} != self.shapes:
            raise ValueError("parameters have other names or shapes")
        return torch.cat([params[name].detach().flatten() for name in self.shapes])

    def gradients(
        self,
        arena: Tensor,
        state: Mapping[str, Tensor],
        numbers: Mapping[str, Tensor],
        noise: Mapping[Sort, Tensor],
        rows: list[Tensor],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Of every lane: the gradient [K, D], the loss [K], and the estimator's state after the evaluation.

        Args:
            arena: unconstrained parameters, shape [K, D].
            state: by name, with a leading dimension of lanes.
            numbers: the estimator's, by where they are: shape [K] each.
            noise: by sort, shape [K, numbers]; see :class:`NoiseLayout`.
            rows: the minibatches; shape [taken] where lanes share them, [K, taken] where not.

        """

        def lane(row: Tensor, state: Any, numbers: Any, noise: Any, own: list[Tensor]) -> tuple[Tensor, Any]:
            chosen = [mine if shared is None else shared for mine, shared in zip(own, common, strict=True)]
            found = self._evaluated(row, state, numbers, noise, chosen)
            return found.surrogate, (found.loss, found.state)

        common = [each if each.dim() == 1 else None for each in rows]
        # Where lanes share a minibatch, a stand-in takes the place of one a lane.
        own = [each if each.dim() > 1 else each.new_zeros(len(arena)) for each in rows]
        numbers = {name: number.to(arena.dtype) for name, number in numbers.items()}
        whole = lane if self.of_particle is None else self._over_particles(lane)
        both = functools.partial(gradient_and_rest, whole)
        gradient, (loss, after) = vmap(both, randomness="error")(arena, dict(state), numbers, dict(noise), own)
        return gradient, loss.detach(), after

    def losses(
        self,
        arena: Tensor,
        state: Mapping[str, Tensor],
        numbers: Mapping[str, Tensor],
        noise: Mapping[Sort, Tensor],
        rows: list[Tensor],
    ) -> Tensor:
        """The losses alone, shape [K]; arguments as for :meth:`gradients`, minibatches of each lane's own."""

        def lane(row: Tensor, state: Any, numbers: Any, noise: Any, own: list[Tensor]) -> Tensor:
            if self.of_particle is None:
                return self._evaluated(row, state, numbers, noise, own).loss
            alone = vmap(lambda noise: self._evaluated(row, state, numbers, noise, own).loss, randomness="error")
            return alone(self._by_particle(noise)).mean()

        numbers = {name: number.to(arena.dtype) for name, number in numbers.items()}
        with torch.no_grad():
            return vmap(lane, randomness="error")(arena, dict(state), numbers, dict(noise), rows)

    def _evaluated(self, row: Tensor, state: Any, numbers: Any, noise: Any, rows: list[Tensor]) -> Evaluated:
        draws = self.draws if self.of_particle is None else self.of_particle
        return draws.served(lambda: self.evaluation(self.unpacked(row), state, numbers), noise, rows)

    def _over_particles(self, of_one: Callable[..., Any]) -> Callable[..., Any]:
        """Surrogate and loss of a lane as means over its particles, of those of one.

        The mean is differentiated, not its terms: there is no gradient of all parameters for each particle.
        """

        def of_all(row: Tensor, state: Any, numbers: Any, noise: Any, rows: Any) -> Any:
            alone = vmap(lambda noise: of_one(row, state, numbers, noise, rows), randomness="error")
            surrogates, (losses, _) = alone(self._by_particle(noise))
            return surrogates.mean(0), (losses.mean(0), {})

        return of_all

    def _by_particle(self, noise: Mapping[Sort, Tensor]) -> dict[Sort, Tensor]:
        """A lane's noise, shape [numbers], as shape [particles, numbers]."""
        assert self.of_particle is not None
        own, all_of_them = self.of_particle.noise.taken, self.draws.noise.taken
        return {sort: noise[sort][: all_of_them[sort]].view(-1, count) for sort, count in own.items()}


def captured(engine: EagerEngine) -> Captured:
    """The loss of a fit that is about to start, captured and compared with the engine's own gradients.

    Raises ``NotCapturedError``. The engine is left as it was.
    """
    return capturing(lambda: _checked(engine))


def capturing(capture: Callable[[], Found]) -> Found:
    """What a function captures; whatever goes wrong is a ``NotCapturedError``, and generators are left as they were."""
    before = raw_random_state()
    try:
        return capture()
    except NotCapturedError:
        raise
    except Exception as error:
        raise NotCapturedError(_reason(error)) from error
    finally:
        set_raw_random_state(before)


def _checked(engine: EagerEngine) -> Captured:
    params = dict(engine.optimization.live)
    modules = {**engine.modules, **engine.baseline_networks}
    evaluation = Evaluation(engine.elbo, engine.programs, engine.problem, modules, params, dict(constraints_table()))
    buffers = {f"{path}.{name}": b for path, module in modules.items() for name, b in module.named_buffers()}
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    try:
        alone = _of_one_particle(engine, evaluation)
        found, draws = Draws.of(lambda: evaluation(params, {}, {})) if alone is None else alone.of_all(engine)
        changed = [name for name, buffer in buffers.items() if not _same(buffer, before[name])]
    finally:
        for name, buffer in buffers.items():
            buffer.copy_(before[name])
    if changed:
        raise NotCapturedError(f"running it changes {changed[0]}, a buffer of a network")
    function = Captured(
        evaluation if alone is None else alone.evaluation,
        {name: param.shape for name, param in params.items()},
        torch.cat([param.detach().flatten() for param in params.values()]),
        {name: torch.zeros_like(value) for name, value in found.state.items()},
        tuple(engine.estimator_numbers),
        draws,
        0,
        None if alone is None else alone.draws,
    )
    return _compared(function, engine)


@dataclass(frozen=True)
class _Alone:
    """One of several particles: one program for all, where they differ in their noise alone."""

    evaluation: Evaluation
    found: Evaluated
    draws: Draws

    def of_all(self, engine: EagerEngine) -> tuple[Evaluated, Draws]:
        """What an evaluation of all particles returns but for the loss, and its draws."""
        return self.found, self.draws.repeated(engine.recipe.estimator.num_particles)


def _of_one_particle(engine: EagerEngine, evaluation: Evaluation) -> _Alone | None:
    """The evaluation of one of several particles; None where they are not all alike."""
    if not separate(engine.recipe.estimator):
        return None
    elbo = replace(engine.recipe.estimator, num_particles=1).build()
    with torch.no_grad():
        elbo.loss(*engine.programs.values(), *engine.problem.args, **engine.problem.kwargs)
    one = evaluation.of(elbo)
    found, draws = Draws.of(lambda: one(dict(engine.optimization.live), {}, {}))
    return None if found.state or draws.minibatches else _Alone(one, found, draws)


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _reason(error: Exception) -> str:
    """What a program did that no transform can pass through, and where: in the user's code, or else in Pyro's."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if is_the_users(f.filename)] or [f for f in frames if "pyro" in Path(f.filename).parts]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    if "data-dependent control flow" in str(error):
        return f"{place}branches on the value of a tensor"
    return f"{place}{message_of(error, 200)}"


def _compared(found: Captured, engine: EagerEngine) -> Captured:
    """Compare two lanes, at the start and beside it, with the engine's own gradients on the same noise.

    Of several particles that one program computes, two show all that there is to see.
    """
    few = found
    if found.of_particle is not None:
        few = replace(found, draws=found.of_particle.repeated(min(2, engine.recipe.estimator.num_particles)))
    with at_most(2, engine.elbo, engine.recipe.estimator):
        _demand_same(few, engine)
    with Peak() as peak:
        found.gradients(*_two_lanes(found, engine))
    return replace(found, lane_bytes=peak.bytes // 2)


def _two_lanes(found: Captured, engine: EagerEngine) -> tuple[Tensor, Any, Any, Any, list[Tensor]]:
    """What :meth:`Captured.gradients` takes: the first lane is where the fit starts, the second beside it."""
    device = found.start.device
    beside = found.start + 0.01 * torch.linspace(-1.0, 1.0, len(found.start)).to(found.start)
    seeds, step = torch.tensor([1, 2], device=device), torch.tensor([0], device=device)
    numbers = {
        name: torch.full((2,), number, dtype=torch.float64, device=device)
        for name, number in engine.estimator_numbers.items()
    }
    return (
        torch.stack([found.start, beside]),
        {name: torch.stack([value, value]) for name, value in found.state.items()},
        numbers,
        {sort: rows[0] for sort, rows in found.draws.noise.filled(seeds, step).items()},
        [choice[0] for choice in filled(found.draws.minibatches, 0, step)],
    )


def _demand_same(found: Captured, engine: EagerEngine) -> None:
    arena, state, numbers, noise, rows = _two_lanes(found, engine)
    gradient, loss, _ = found.gradients(arena, state, numbers, noise, rows)
    for lane in range(2):
        own = found.unpacked(arena[lane])
        draws = found.draws.noise.of_lane({sort: each[lane] for sort, each in noise.items()})

        def gradients(own: dict[str, Tensor] = own, draws: list[Tensor] = draws) -> tuple[float, Mapping[str, Tensor]]:
            with engine.undone(), transformable(), GivenMinibatches(rows), Given(draws, in_place=True):
                engine.move_to(own)
                return engine.gradients()

        expected_loss, expected = gradients()
        if lane == 0 and torch.tensor(gradients()[0] - expected_loss).nan_to_num() != 0:
            raise NotCapturedError("its loss is another at every call, on the same parameters and draws")
        demand_close("the loss", loss[lane], torch.tensor(expected_loss))

        @functools.cache
        def beside(gradients: Any = gradients, own: dict[str, Tensor] = own) -> Mapping[str, Tensor]:
            return gradients({name: _nudged(param) for name, param in own.items()})[1]

        for name, part in found.unpacked(gradient[lane]).items():
            theirs = expected.get(name, torch.zeros_like(part))
            try:
                demand_close(f"the gradient of {name}", part, theirs, abs(expected_loss))
            except NotCapturedError:
                # Roundings grow where a matrix is nearly singular, or large terms cancel.
                apart = (beside().get(name, torch.zeros_like(part)) - theirs).abs().max()
                if not bool((part - theirs).abs().max() <= ROUNDINGS * apart):
                    raise


def _nudged(param: Tensor) -> Tensor:
    """One rounding away, by turns up and down."""
    signs = 1.0 - 2.0 * (torch.arange(param.numel(), device=param.device) % 2).view(param.shape)
    return param * (1.0 + torch.finfo(param.dtype).eps * signs.to(param))


ROUNDINGS = 100
"""Of a sum of some terms, or of where a fit starts, by which two ways to compute something may differ."""


def demand_close(what: str, ours: Tensor, theirs: Tensor, terms: float = 0.0) -> None:
    """Raise ``NotCapturedError`` if a captured function's result differs from that of what was captured.

    Args:
        what: it is, in words.
        ours: the captured function's.
        theirs: what was captured has given.
        terms: the size of terms that may have cancelled in it. Nothing but roundings is left of a gradient by
            ``stl`` where the guide is the posterior.

    """
    tolerance = 1e-3 if ours.dtype == torch.float32 else 1e-8
    theirs = theirs.to(ours)
    size = theirs.abs().max() if theirs.numel() else theirs.new_zeros(())
    rounded = ROUNDINGS * torch.finfo(ours.dtype).eps * (1.0 + terms) if math.isfinite(terms) else 0.0
    if not bool(((ours - theirs).abs() <= tolerance * (size + tolerance) + rounded).all()):
        raise NotCapturedError(
            f"captured, {what} differs from the estimator's own by {(ours - theirs).abs().max():.3g}"
        )


class _Unseen(Messenger):
    """Inside, notes after which sites torch's own generator has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[str] = []
        self._state = torch.get_rng_state()

    def _pyro_post_sample(self, msg: Any) -> None:
        self._note(f"the draw of {msg['name']} ({distribution_name(msg['fn'])})")

    def demand_none(self) -> None:
        """Raise ``NotCapturedError`` if the generator has moved."""
        self._note("a random function outside of all sample sites")
        if self.sites:
            raise NotCapturedError(f"{self.sites[0]} takes its random numbers in a way that is not known")

    def _note(self, where: str) -> None:
        state = torch.get_rng_state()
        if not torch.equal(state, self._state):
            self.sites.append(where)
            self._state = state
