"""A fit that is about to become a lane: where it starts, and the numbers that are its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.lanes.captured import Captured, NotCapturedError
from sweepvi.engine.lanes.update import Group, Plan
from sweepvi.engine.optimization import Optimization
from sweepvi.optim import Rule
from sweepvi.recipe import Recipe


@dataclass(frozen=True)
class Start:
    """Where a program's parameters start under a seed; everything else that a fit starts with is the same for all."""

    params: dict[str, Tensor]
    """Unconstrained, by name."""
    buffers: dict[str, Tensor]
    """The networks', by path and name."""

    @staticmethod
    def of(engine: EagerEngine) -> Start:
        """Where an engine stands."""
        params = {name: param.detach().clone() for name, param in engine.optimization.live.items()}
        return Start(params, buffers_of(engine))


def buffers_of(engine: EagerEngine) -> dict[str, Tensor]:
    """Copies of the buffers of an engine's networks, by path and name."""
    return {f"{path}.{n}": b.clone() for path, module in engine.modules.items() for n, b in module.named_buffers()}


@dataclass(frozen=True)
class Entrant:
    """A fit as a lane takes it up."""

    seed: int
    steps: int
    skips: bool
    """Whether steps that are not finite are left out."""
    plan: Plan
    row: Tensor
    """Parameters where it starts, unconstrained: shape [D]."""
    numbers: dict[str, float]
    """The estimator's, by where they are."""

    @staticmethod
    def of(recipe: Recipe, start: Start, optimization: Optimization, captured: Captured) -> Entrant:
        """A recipe's; ``NotCapturedError`` if its parameters are others than the program's."""
        try:
            row = captured.packed(start.params)
        except ValueError as error:
            raise NotCapturedError("the seed changes which parameters there are") from error
        settings, estimator = recipe.settings, recipe.estimator
        return Entrant(
            seed=settings.seed,
            steps=settings.steps,
            skips=settings.on_nonfinite == "skip",
            plan=plan_of(recipe, optimization),
            row=row,
            numbers={place: float(getattr(estimator, key)) for key, place in estimator.varies.items()},
        )


def plan_of(recipe: Recipe, optimization: Optimization) -> Plan:
    """How a recipe's parameters are optimized; ``NotCapturedError`` under optimizers that are no rules."""
    groups = []
    for label, names in optimization.groups().items():
        settings = recipe.groups[label]
        if not isinstance(settings.optimizer, Rule):
            raise NotCapturedError("the optimizer is a Python object of torch's, and not one of sweepvi's")
        shares = settings.optimizer.clip.global_norm is not None and settings.shares_norm
        groups.append(Group(label, settings.optimizer, tuple(names), shares, settings.lr_factor, settings.scheduler))
    return tuple(groups)
