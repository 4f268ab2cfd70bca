"""Reduction on a plateau of the loss.

Semantics of ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with ``mode="min"``, ``factor = gamma``,
``min_lr = min_factor * lr`` and ``eps=0``. With ``interval=epoch`` it looks once an epoch, at the mean of the epoch's
losses. Differences:

- with ``threshold_mode=rel``, better means below ``best - threshold * |best|``. Torch's ``best * (1 - threshold)`` lies
  above a negative best loss, where even a worse one would count as better; a loss that is an estimate of -ELBO may well
  be negative;
- ``smoothing`` compares an exponential average of the losses, since one estimate of the ELBO is noise for the most
  part. The average is corrected for its start as Adam's are (Kingma & Ba 2015, section 3);
- a loss that is NaN or infinite counts as not better, and is left out of every average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import maximum, where
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Plateau(Schedule):
    """Step size times `gamma` whenever the loss has stopped falling."""

    gamma: Annotated[float, Key("factor on the step size at each reduction", gt=0, lt=1)] = 0.5
    patience: Annotated[int, Key("losses in a row that may be no better", ge=0)] = 200
    threshold: Annotated[float, Key("by how much a loss must be below the best to be better", ge=0)] = 1e-4
    threshold_mode: Annotated[Literal["rel", "abs"], Key("threshold as a share of the best loss, or in nats")] = "rel"
    cooldown: Annotated[int, Key("losses after a reduction that do not count as no better", ge=0)] = 0
    min_factor: Annotated[float, Key("factor below which no reduction goes", ge=0, le=1)] = 0.01
    smoothing: Annotated[float, Key("decay of an average of the losses; 0: none", ge=0, lt=1)] = 0.0

    def conflicts(self) -> dict[str, str]:
        """No positive loss is below nothing."""
        problems = super().conflicts()
        if self.threshold_mode == "rel" and self.threshold >= 1:
            problems["threshold"] = "with threshold_mode=rel, must be a share < 1"
        return problems

    def at(self, time: Time, state: State) -> Any:
        """The product of the reductions so far."""
        return state["factor"]

    def init(self) -> dict[str, Tensor]:
        """Nothing seen: scalars, which broadcast over lanes."""
        start = {"best": torch.inf, "factor": 1.0}
        zeros = ("bad", "cooling", "average", "weight", "sum", "count")
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in (start | dict.fromkeys(zeros, 0.0)).items()
        }

    def observe(self, state: State, step: Time, loss: Tensor) -> dict[str, Tensor]:
        """Take the loss in; look, if it is the last one of an epoch, or if there are no epochs."""
        usable = loss.isfinite()
        gathered = {
            **state,
            "sum": state["sum"] + where(usable, loss, 0.0),
            "count": state["count"] + where(usable, 1.0, 0.0),
        }
        looks = (step + 1) % (self.steps_per_epoch or 1) == 0
        looked = self._look(gathered)
        return {name: where(looks, looked[name], value) for name, value in gathered.items()}

    def _look(self, state: State) -> dict[str, Tensor]:
        """The state after a look at the mean of what was gathered."""
        # Without a usable loss, the average stays where it was, which is never better than the best so far.
        usable = state["count"] > 0
        mean = state["sum"] / state["count"]
        keep = self.smoothing
        average = where(usable, keep * state["average"] + (1 - keep) * mean, state["average"])
        weight = where(usable, keep * state["weight"] + (1 - keep), state["weight"])
        current = average / weight

        best = state["best"]
        margin = best * (1 - self.threshold * best.sign()) if self.threshold_mode == "rel" else best - self.threshold
        better = current < margin
        cools = state["cooling"] > 0
        bad = where(better | cools, 0.0, state["bad"] + 1)
        reduces = bad > self.patience
        return {
            "best": where(better, current, best),
            "factor": where(reduces, maximum(state["factor"] * self.gamma, self.min_factor), state["factor"]),
            "bad": where(reduces, 0.0, bad),
            "cooling": where(reduces, float(self.cooldown), maximum(state["cooling"] - 1, 0.0)),
            "average": average,
            "weight": weight,
            "sum": torch.zeros_like(mean),
            "count": torch.zeros_like(mean),
        }
