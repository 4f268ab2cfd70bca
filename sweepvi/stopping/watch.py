"""When a fit is done, and what of it is the result.

A stochastic gradient method at a constant step size is a Markov chain: it does not converge to a point, but comes to
move around one. Dhaka, Catalina, Andersen, Magnusson, Huggins & Vehtari, "Robust, Accurate Stochastic Optimization for
Variational Inference", 2020, therefore detect that it is stationary, and take the mean of the iterates from there on.
Welandawe, Andersen, Vehtari & Huggins, "A Framework for Improving the Reliability of Black-box Variational Inference",
2024 (RAABBVI), reduce the step size after that and begin anew, until this is predicted to gain too little. The watch
goes by their plan. It measures in nats instead of in units of the parameters, which need not be those of a normal
distribution here:

1. At a step size, iterates are averaged over batches of steps. They are stationary over a window if no parameter's
   batch means have a trend in it (:mod:`sweepvi.stopping.trend`); or else if what the last third of the window has
   gained over the second is below the tolerance and at most half of what that gained over the first: then parameters
   approach a point with next to no noise. The losses of the window must not fall either.
2. The error of the window's average m is known from those of its thirds t₁, t₂, t₃, all on the same draws. To second
   order, E f(tᵢ) − f* = 3 (E f(m) − f*), because a third has three times the variance of the whole. So

       error = (mean f(tᵢ) − f(m)) / 2

   estimates E f(m) − f*. In this difference the draws' noise cancels to first order, as the tᵢ have the mean m.
3. When the error is small enough, m is compared with the average at the step size before, on the same draws. If the
   gain, corrected for the errors of both, is above the tolerance and twice its standard error, the step size is
   reduced again. If it is not, and the error is below the tolerance, the fit is done.

Batches, windows and looks depend on the numbers of one fit's steps alone: not on the fits beside it, nor on how many
steps are taken at once.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sweepvi.stopping.batches import Batches
from sweepvi.stopping.trend import significant, slopes

BATCHES = 16
"""Batches in the shortest window."""

MOST = 48
"""Batches at which they are merged."""

FEWEST = 12
"""Batches of a window that are left when others are dropped from its start."""

GROWTH = 1.5
"""Factor on the steps at one step size until they are judged again."""

FIRST_DRAWS = 32
"""Evaluations of the loss at each point, before more are asked for."""

LOOSE = 4.0
"""Tolerances that the error of an average may be for the step size to be reduced; for the fit to be done it is one."""

WORTH = 10.0
"""It may also be this part of what is gained: where a step size is far too large, it is not to be averaged for long."""

NEGLIGIBLE = 0.05
"""Tolerances per third of a window that parameters with a trend may go on to gain."""

FALLING = 0.02
"""Level at which losses are said to fall."""


@dataclass(frozen=True)
class Request:
    """Points at which the loss is to be evaluated, all on the same draws."""

    points: Tensor
    """Parameters, unconstrained: shape [P, D]."""
    first: int
    """Number of the first draw, in a sequence of draws that no step takes."""
    draws: int


Asking: TypeAlias = Generator[Request, Tensor, None]
"""Asks for losses, and is sent them: float64, shape [P, draws]."""


@dataclass(frozen=True)
class _Level:
    """The average at a step size."""

    point: Tensor
    """Shape [D]."""
    error: float
    """In nats."""


class Watch:
    """Watches one fit.

    Args:
        tolerance: nats that may be left to gain.
        factor: on the step size, each time.
        window: steps at each step size, at least.
        draws: evaluations of the loss by which points are compared, at most.
        size: parameters of the fit.

    Attributes:
        rate: factor on the step size that the schedule gives.
        stopped: why the fit is done, empty while it is not.
        result: the parameters that it has found, shape [D], once it is over; None if they are the optimizer's.

    """

    def __init__(self, tolerance: float, factor: float, window: int, draws: int, size: int) -> None:
        self._tolerance, self._factor, self._window, self._draws = tolerance, factor, window, draws
        self.size = size
        self.every = max(1, window // BATCHES)
        """Steps of the shortest batch: looks come after multiples of it."""
        self.rate = 1.0
        self.stopped = ""
        self.result: Tensor | None = None
        self._reductions = 0
        self._before: _Level | None = None
        self._error = math.nan
        self._moving = True
        self._gaining: float | None = None
        self._begin(0)

    @property
    def done(self) -> bool:
        """Whether the fit is to end."""
        return bool(self.stopped)

    @property
    def next_look(self) -> int:
        """The step after which :meth:`look` is due."""
        return self._start + self._batches.steps + self._batches.width

    def _begin(self, step: int) -> None:
        """Begin anew, after ``step`` steps."""
        self._start, self._batches = step, Batches(self.every, MOST)
        self._next_check = self.every * BATCHES

    def resize(self, step: int, size: int) -> None:
        """The fit has other parameters after ``step`` steps: what was seen of it is of no use."""
        self.size, self._before = size, None
        self._begin(step)

    def look(self, iterates: Tensor, loss: float, last: Tensor) -> Asking:
        """Look at the fit after step :attr:`next_look`.

        Args:
            iterates: mean of the parameters after each step since the last look, shape [D].
            loss: mean of the losses of these steps.
            last: the optimizer's result after the last of them, shape [D].

        """
        self._batches.add(iterates, loss)
        if self._batches.steps < self._next_check:
            return
        self._next_check = math.ceil(GROWTH * self._batches.steps)
        yield from self._check(last)

    def exhaust(self, steps: int, last: Tensor) -> Asking:
        """All ``steps`` steps are taken: choose the result; the watch can go on, if there are more steps later on."""
        count = max(len(self._batches) // 2, min(len(self._batches), BATCHES))
        if count >= 4:
            yield from self._choose(self._batches.iterates(count).mean(0), last)
        self.exhausted = f"all {steps:,} steps taken, {self._what_is_missing(count)}"

    exhausted: str = ""
    """What is to be said of a fit that has taken all its steps."""

    def _what_is_missing(self, count: int) -> str:
        if count < 4:
            return "too few to say whether it has settled"
        slope, t = (float(each) for each in slopes(self._batches.losses(count)))
        per_hundred = -100 * slope / self._batches.width
        if t < -significant(1, count, FALLING):
            return f"still gaining {per_hundred:.2g} nats per 100 steps: give more engine.steps"
        if self._gaining is not None:
            return f"still gaining {self._gaining:.2g} nats per 100 steps: give more engine.steps"
        if self._moving:
            return "not settled: parameters still move; give more engine.steps"
        return f"not settled: its average may be {max(self._error, 0.0):.2g} nats off; give more engine.steps"

    def _check(self, last: Tensor) -> Asking:
        count, steady = self._steady()
        parts = self._batches.iterates(count).tensor_split(3)
        thirds = torch.stack([part.mean(0) for part in parts])
        mean = thirds.mean(0)
        points = [*thirds, mean, *([self._before.point] if self._before else [])]
        seen = _Seen((yield Request(torch.stack(points), 0, FIRST_DRAWS)), self._before)
        while self._is_doubtful(seen, steady):
            known = seen.losses.shape[1]
            more = min(3 * known, self._draws - known)
            seen = _Seen(torch.cat([seen.losses, (yield Request(torch.stack(points), known, more))], 1), self._before)
        self._error, self._moving = seen.error, not (steady or self._approaches(seen))
        clear = self._moving and seen.whole.mean > 2 * seen.whole.error
        # Between the middles of the first third and of the last lie two thirds of the window.
        self._gaining = 150 * seen.whole.mean / (count * self._batches.width) if clear else None
        if self._moving or self._gains(seen) or self._falls(count):
            return
        if self._before is None or seen.gain.exceeds(self._tolerance) or self._before.error > LOOSE * self._tolerance:
            # How much is at stake: what the average, or the smaller step size, has gained already.
            spread = float(self._batches.losses(count).mean() - seen.losses[3].mean())
            stake = spread / 2 if self._before is None else seen.gain.mean
            if seen.error <= max(LOOSE * self._tolerance, stake / WORTH):
                self._reduce(_Level(mean, seen.error))
        elif seen.error <= self._tolerance and seen.gain.known:
            yield from self._choose(mean, last)
            self.stopped = self._why(seen)

    def _steady(self) -> tuple[int, bool]:
        """Batches of the longest window in which no parameter has a trend; of half of them all, if there is none."""
        batches = len(self._batches)
        for count in dict.fromkeys(max(FEWEST, share * batches // 4) for share in (4, 3, 2)):
            t = slopes(self._batches.iterates(count))[1]
            # What is frozen cannot have one.
            if float(t.abs().max()) < significant(int((t != 0).sum()), count):
                return count, True
        return max(FEWEST, batches // 2), False

    def _approaches(self, seen: _Seen) -> bool:
        """Whether parameters with a trend go on to where there is next to nothing to gain."""
        first, second = seen.thirds
        high = second.high
        slows = 2 * second.mean <= first.mean
        return high <= self._tolerance and (slows or high <= NEGLIGIBLE * self._tolerance)

    def _gains(self, seen: _Seen) -> bool:
        """Whether the last third is better than the first by more than the window's own noise explains."""
        return not seen.whole.mean <= max(self._tolerance, 2 * seen.whole.error) + 4 * max(seen.error, 0.0)

    def _falls(self, count: int) -> bool:
        """Whether the losses of the window fall."""
        slope, t = (float(each) for each in slopes(self._batches.losses(count)))
        return -slope * count > self._tolerance and t < -significant(1, count, FALLING)

    def _is_doubtful(self, seen: _Seen, steady: bool) -> bool:
        """Whether more draws could decide what these do not."""
        if seen.losses.shape[1] >= self._draws or not seen.error <= LOOSE * self._tolerance:
            return False
        wanted = [] if self._before is None else [seen.gain]
        wanted += [] if steady else [seen.thirds[1]]
        return any(2 * each.error > self._tolerance for each in wanted)

    def _reduce(self, level: _Level) -> None:
        self.rate *= self._factor
        self._reductions += 1
        self._before = level
        self._begin(self._start + self._batches.steps)

    def _choose(self, average: Tensor, last: Tensor) -> Asking:
        """Let the result be the average, unless the loss is higher there than at the optimizer's own."""
        losses = yield Request(torch.stack([average, last.double()]), 0, self._draws // 2)
        better = bool(losses[0].mean() <= losses[1].mean())
        self.result = average if better else None

    def _why(self, seen: _Seen) -> str:
        times = f"{self._reductions} {'reduction' if self._reductions == 1 else 'reductions'}"
        steps = self._start + self._batches.steps
        return (
            f"settled after {steps:,} steps and {times} of the step size to {self.rate:.3g} of it: "
            f"the last gained {max(seen.gain.mean, 0.0):.2g} nats, with an error of {seen.gain.error:.1g}"
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a continuation needs: tensors by name, and plain data."""
        tensors, batches = self._batches.state()
        tensors |= {"result": self.result} if self.done and self.result is not None else {}
        tensors |= {"before": self._before.point} if self._before else {}
        meta = {
            "rate": self.rate,
            "stopped": self.stopped,
            "reductions": self._reductions,
            "before": self._before.error if self._before else None,
            "error": self._error if math.isfinite(self._error) else None,
            "moving": self._moving,
            "gaining": self._gaining,
            "start": self._start,
            "next_check": self._next_check,
            "size": self.size,
        }
        return tensors, meta | batches

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self._begin(meta["start"])
        self._batches.load(tensors, meta)
        self.rate, self.stopped, self._reductions = meta["rate"], meta["stopped"], meta["reductions"]
        self._next_check, self.size = meta["next_check"], meta["size"]
        self._moving, self._gaining = meta["moving"], meta["gaining"]
        self._error = math.nan if meta["error"] is None else meta["error"]
        self._before = None if meta["before"] is None else _Level(tensors["before"], meta["before"])
        self.result = tensors.get("result")


@dataclass(frozen=True)
class _Difference:
    """Of the loss at two points, on the same draws."""

    mean: float
    error: float

    @staticmethod
    def of(higher: Tensor, lower: Tensor, correction: float = 0.0) -> _Difference:
        """Of losses of shape [draws]; zero if they are of one draw, over and over."""
        differences = higher - lower
        error = float(differences.std()) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
        return _Difference(float(differences.mean()) - correction, error)

    @property
    def high(self) -> float:
        """What it may well be."""
        return self.mean + 2 * self.error

    @property
    def known(self) -> bool:
        """Whether it is a number."""
        return math.isfinite(self.mean)

    def exceeds(self, tolerance: float) -> bool:
        """Whether it is more than the tolerance, and not by chance."""
        return self.mean > max(tolerance, 2 * self.error)


class _Seen:
    """What losses say of a window.

    Args:
        losses: of its thirds, of its average, and of the average at the step size before, if there was one:
            float64, shape [4 or 5, draws].
        before: that average.

    """

    def __init__(self, losses: Tensor, before: _Level | None) -> None:
        self.losses = losses
        one, two, three, mean = losses[:4]
        self.error = float((losses[:3].mean(0) - mean).mean()) / 2
        """Nats by which the average is off, in expectation."""
        self.thirds = _Difference.of(one, two), _Difference.of(two, three)
        """What each third gains over the one before."""
        self.whole = _Difference.of(one, three)
        self.gain = _Difference(math.inf, 0.0)
        """What the smaller step size has gained, but for the errors of averages."""
        if before is not None:
            errors = max(before.error, 0.0) - max(self.error, 0.0)
            self.gain = _Difference.of(losses[4], mean, errors)
