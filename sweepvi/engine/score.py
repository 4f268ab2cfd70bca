"""The ELBO of finished parameters, on draws that no update has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pyro
import torch
from pyro import poutine
from torch import Tensor

from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.marginal import marginal_log_weight, sums_out
from sweepvi.engine.numerical import MAYBE_NUMERICAL, is_numerical
from sweepvi.guides.guide import Program
from sweepvi.problem import Problem

Weigh: TypeAlias = Callable[[Mapping[str, Program], Problem], Tensor]
"""Of programs and a problem, a number for one draw of the guide."""

SCORE_SEED = 1_000_003
"""Every fit is scored on the same noise, whatever its own seed, so that two scores differ by the fits alone."""


def log_weights(
    programs: Mapping[str, Program],
    problem: Problem,
    draws: int,
    interrupt: Interrupt,
    progress: Callable[[int, int], None],
    seed: int = SCORE_SEED,
    weigh: Weigh | None = None,
) -> Tensor:
    """Log p(data, z) - log q(z) for fresh draws z of the guide: float64, shape [draws]; or what ``weigh`` says.

    Shorter if the user interrupts. A draw at which the model's own arithmetic fails is NaN.
    """
    pyro.set_rng_seed(seed)
    weights: list[float] = []
    with torch.no_grad():
        while len(weights) < draws and not interrupt.requested:
            weights.append(_number(weigh or log_weight, programs, problem))
            progress(len(weights), draws)
    return torch.tensor(weights, dtype=torch.float64, device="cpu")


def traces(programs: Mapping[str, Program], problem: Problem) -> tuple[Any, Any]:
    """Traces of the model and of the guide that it was run against; no graph of gradients."""
    guide_trace = guide_trace_of(programs, problem)
    return model_trace_of(programs, problem, guide_trace), guide_trace


def guide_trace_of(programs: Mapping[str, Program], problem: Problem) -> Any:
    """The trace of the guide alone; no graph of gradients."""
    with torch.no_grad():
        return poutine.trace(programs["guide"]).get_trace(*problem.args, **problem.kwargs)


def model_trace_of(programs: Mapping[str, Program], problem: Problem, guide_trace: Any) -> Any:
    """The trace of the model, run against a guide's; no graph of gradients."""
    with torch.no_grad():
        model = poutine.replay(programs["model"], trace=guide_trace)
        return poutine.trace(model).get_trace(*problem.args, **problem.kwargs)


def log_weight(programs: Mapping[str, Program], problem: Problem) -> Tensor:
    """Log p(data, z) - log q(z) for one draw z of the guide: shape []."""
    return log_weight_of(programs, problem, *traces(programs, problem))


def log_weight_of(programs: Mapping[str, Program], problem: Problem, model_trace: Any, guide_trace: Any) -> Tensor:
    """The same for the draw of which these are the :func:`traces`."""
    if sums_out(model_trace, guide_trace):
        return torch.as_tensor(marginal_log_weight(programs, problem, model_trace, guide_trace))
    with torch.no_grad():
        return torch.as_tensor(model_trace.log_prob_sum()).double() - guide_trace.log_prob_sum()


def predictive_log_density(programs: Mapping[str, Program], problem: Problem) -> Tensor:
    """Log p(held-out data | z) for one draw z of the guide: shape [].

    What the guide does not draw, such as a latent variable of each held-out datum, is drawn from the model.
    """
    assert problem.heldout is not None
    args, kwargs = problem.heldout
    arguments: Any = problem.args
    with torch.no_grad():
        guide_trace = poutine.trace(programs["guide"]).get_trace(*arguments, **problem.kwargs)
        model = poutine.replay(programs["model"], trace=guide_trace)
        trace: Any = poutine.trace(model).get_trace(*args, **kwargs)
        observed = [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"]]
        trace.compute_log_prob(lambda name, site: site["is_observed"])
        return torch.as_tensor(sum(site["log_prob_sum"] for site in observed)).double()


def _number(weigh: Weigh, programs: Mapping[str, Program], problem: Problem) -> float:
    try:
        return float(weigh(programs, problem))
    except MAYBE_NUMERICAL as error:
        if not is_numerical(error):
            raise
        return float("nan")
