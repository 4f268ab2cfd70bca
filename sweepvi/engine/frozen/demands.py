"""What a fit must be so that a minimizer can run it; found out before its first step."""

from __future__ import annotations

import torch
from pyro.distributions import TransformModule
from pyro.infer import autoguide
from torch import Tensor, nn

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.frozen.objective import FrozenObjective
from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.score import traces
from sweepvi.errors import ConfigError, Problem, listed, raise_if
from sweepvi.estimators.sites import latent_sites
from sweepvi.guides.guide import Program
from sweepvi.optim import Minimizer
from sweepvi.optim.minimizer import DRAWS

STEPS = {torch.float64: 1e-4, torch.float32: 1e-2}
"""Of a difference of losses, by type, for parameters of size 1."""

TOLERANCE = {torch.float64: 1e-3, torch.float32: 5e-2}
"""Of a derivative, relative to the gradient, by type."""


def demand_function(engine: EagerEngine, captured: Captured, name: str) -> None:
    """Raise ``ConfigError`` if the loss, on given noise, is no smooth function of the parameters.

    Args:
        engine: at its first step.
        captured: its loss.
        name: the minimizer's.

    """
    sites = latent_sites(*traces(engine.programs, engine.problem))
    summed = engine.recipe.estimator.sums_out
    rough = [n for n, site in sites.items() if site.in_guide and not site.path and not (summed and site.enumerated)]
    problems = []
    if rough:
        message = (
            f"needs draws that are differentiable functions of noise, and those of {listed(rough)} are not; "
            "sum over discrete ones with estimator=trace_enum, or use clipped_adam"
        )
        problems.append(Problem.of("optimizer", name, message))
    if captured.draws.minibatches:
        message = "needs all of the data in every evaluation, and plates take minibatches; use clipped_adam"
        problems.append(Problem.of("optimizer", name, message))
    if captured.state:
        message = f"keeps running averages, and so is no fixed loss, as optimizer={name} needs; use trace"
        problems.append(Problem("estimator", message))
    raise_if(problems)


def demand_derivative(objective: FrozenObjective, captured: Captured, name: str) -> None:
    """Raise ``ConfigError`` if the gradient is not the derivative of the loss, of some parameter, by differences."""
    x = captured.start + 0.01 * torch.linspace(-1.0, 1.0, len(captured.start)).to(captured.start)
    value, gradient = objective(x)
    for param, part in captured.unpacked(gradient).items():
        along = _direction(captured, param)
        step = STEPS[x.dtype] * (1.0 + float(x.abs().max()))
        above, below = objective(x + step * along)[0], objective(x - step * along)[0]
        error = abs((above - below) / (2.0 * step) - float(gradient @ along))
        allowed = TOLERANCE[x.dtype] * (1.0 + float(part.norm())) + 10.0 * objective.rounding * abs(value) / step
        # What is not finite is the fit's to say.
        if error > allowed:
            message = (
                f"on frozen noise, the gradient of {param} is not the derivative of the loss, which optimizer={name} "
                "needs: some draws, such as gammas' by rejection, are no smooth function of noise; use clipped_adam"
            )
            raise ConfigError([Problem("estimator", message)])


def _direction(captured: Captured, param: str) -> Tensor:
    """Of length 1 and with alternating signs, within one parameter: shape [D]."""
    parts = {name: torch.zeros(shape) for name, shape in captured.shapes.items()}
    size = max(1, parts[param].numel())
    signs = 1.0 - 2.0 * (torch.arange(size) % 2)
    parts[param] = (signs / size**0.5)[: parts[param].numel()].view(captured.shapes[param])
    return captured.packed(parts).to(captured.start)


def first_draws(minimizer: Minimizer, guide: Program, name: str) -> int:
    """How many draws to begin with; ``ConfigError`` if they are too few for the guide, or none are enough."""
    least = _least_draws(guide)
    if least is None:
        message = (
            "is flexible enough to fit any number of frozen draws, on which the mean loss has no minimum then; with "
            f"optimizer={name}, use a guide of normals, or clipped_adam with engine.noise=fresh"
        )
        raise ConfigError([Problem("guide", message)])
    draws = max(DRAWS, 2 * least) if minimizer.draws is None else minimizer.draws
    if draws < least:
        message = (
            f"must be at least {least} with this guide: with no more draws than a latent scalar has coefficients in "
            "the guide, the mean loss over them has no minimum"
        )
        raise ConfigError([Problem.of("optimizer.draws", draws, message)])
    if draws > minimizer.max_draws:
        message = f"must be at least {draws}, the draws to begin with for this guide"
        raise ConfigError([Problem.of("optimizer.max_draws", minimizer.max_draws, message)])
    return draws


def _least_draws(guide: Program) -> int | None:
    """The number of draws from which on the mean loss is bounded; None for flows, which fit any number of them.

    A latent scalar of a normal guide is linear in its coefficients: a location and a scale, or a row of the factor of
    the covariance. With no more draws than these, some change of them leaves all draws where they are and makes the
    guide as wide as one likes; DADVI has this for full rank.
    """
    if isinstance(guide, nn.Module) and any(isinstance(part, TransformModule) for part in guide.modules()):
        return None
    if isinstance(guide, autoguide.AutoMultivariateNormal):
        return guide.latent_dim + 1
    if isinstance(guide, autoguide.AutoLowRankMultivariateNormal):
        assert guide.rank is not None
        return guide.rank + 2
    return 2
