"""The one-cycle policy.

Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018. Semantics of
``torch.optim.lr_scheduler.OneCycleLR`` with ``max_lr`` the optimizer's step size, ``total_steps = steps``,
``pct_start = warm_fraction``, ``div_factor = 1 / initial_factor`` and
``final_div_factor = initial_factor / final_factor``: both factors here are relative to the peak. Differences:

- momentum is left alone (torch's ``cycle_momentum=False``);
- after the last step, the factor stays at ``final_factor``: torch goes on along the curve for one step, then raises;
- where torch divides by zero, in a rise of no length, the peak comes at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import half_cosine, minimum, where
from sweepvi.schedule.finite import Finite
from sweepvi.schedule.schedule import State, Time


@dataclass(frozen=True)
class OneCycle(Finite):
    """Step size up to the optimizer's own, then far down, once over the fit; momentum stays as it is."""

    warm_fraction: Annotated[float, Key("share of the steps spent going up", ge=0, lt=1)] = 0.3
    shape: Annotated[Literal["cosine", "linear"], Key("shape of the way up and down")] = "cosine"
    initial_factor: Annotated[float, Key("factor on the step size at the start", gt=0, le=1)] = 0.04
    final_factor: Annotated[float, Key("factor on the step size at the end", gt=0, le=1)] = 4e-6
    three_phase: Annotated[bool, Key("come down as slowly as up, to the initial factor, before the final fall")] = False

    def conflicts(self) -> dict[str, str]:
        """Up and down again must fit."""
        problems = super().conflicts()
        if self.three_phase and self.warm_fraction > 0.5:
            problems["warm_fraction"] = (
                "with three_phase=true, must be at most 0.5: going down takes as long as going up"
            )
        return problems

    def at(self, time: Time, state: State) -> Any:
        """Up to 1 and down to ``final_factor``, which is reached at the last step, ``steps - 1``."""
        last = self.length() - 1
        time = minimum(time, last)
        # Torch's ends of the phases, which need not be whole numbers; the first phase whose end is not past counts.
        peak = self.warm_fraction * self.length() - 1
        phases = [(0.0, peak, self.initial_factor, 1.0)]
        if self.three_phase:
            down = 2 * self.warm_fraction * self.length() - 2
            phases += [(peak, down, 1.0, self.initial_factor), (down, last, self.initial_factor, self.final_factor)]
        else:
            phases += [(peak, last, 1.0, self.final_factor)]
        factor = self._within(time, *phases[-1])
        for phase in reversed(phases[:-1]):
            factor = where(time <= phase[1], self._within(time, *phase), factor)
        return factor

    def _within(self, time: Any, start: float, end: float, initial: float, final: float) -> Any:
        """The factor on the way from ``initial`` to ``final`` in a phase."""
        if start == end:
            return final
        share = (time - start) / (end - start)
        return final + (initial - final) * (half_cosine(share) if self.shape == "cosine" else 1.0 - share)
