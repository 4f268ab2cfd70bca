"""AdamW: Adam with weight decay apart from the gradient.

Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2. Semantics of ``torch.optim.AdamW``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.adam import AdamBase
from sweepvi.optim.rule import Hyper, Slots
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdamWRule(AdamBase):
    """AdamW, as in torch: Adam whose weight decay bypasses the averages."""

    weight_decay: Annotated[float, Key("share of the parameter taken off a step, times lr", ge=0)] = 1e-2

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        return self.decoupled_update(grad, param, slots, hyper)


class AdamW(RuleOptimizer, rule=AdamWRule, lr=1e-3):
    """:class:`AdamWRule` as a ``torch.optim.Optimizer``."""
