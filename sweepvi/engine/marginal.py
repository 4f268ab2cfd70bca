"""Models with variables that the guide leaves out, to be summed over: their density, and draws of what they sum over.

Both by tensor variable elimination: Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush & Goodman, "Tensor Variable
Elimination for Plated Factor Graphs", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro import poutine
from pyro.infer.discrete import infer_discrete
from pyro.infer.traceenum_elbo import TraceEnum_ELBO

from sweepvi.estimators.enumeration import marked
from sweepvi.estimators.sites import is_countable, is_latent
from sweepvi.guides.guide import Program
from sweepvi.private import is_subsample
from sweepvi.problem import Problem


def sums_out(model_trace: Any, guide_trace: Any) -> bool:
    """Whether the model has latent variables that are enumerated and that the guide has not."""
    missing = (site for name, site in model_trace.nodes.items() if is_latent(site) and name not in guide_trace)
    return any(site["infer"].get("enumerate") for site in missing)


def marginal_log_weight(programs: Mapping[str, Program], problem: Problem, model_trace: Any, guide_trace: Any) -> float:
    """Log p(data, z) - log q(z) for the guide's draws z, all other variables of the model summed out."""
    elbo = TraceEnum_ELBO(max_plate_nesting=_plate_nesting(model_trace, guide_trace), strict_enumeration_warning=False)
    arguments: Any = problem.args
    guide = marked(poutine.replay(programs["guide"], trace=guide_trace), lambda site: {"enumerate": None})
    return -elbo.loss(_enumerated(programs["model"]), guide, *arguments, **problem.kwargs)


def posterior_trace(programs: Mapping[str, Program], problem: Problem, model_trace: Any, guide_trace: Any) -> Any:
    """The trace of a model on the guide's draws, all other variables drawn from their posterior given those.

    Its minibatches are those of ``model_trace``.
    """
    given = guide_trace.copy()
    for name, site in model_trace.nodes.items():
        if site["type"] == "sample" and is_subsample(site) and name not in given:
            # The model runs twice, to enumerate and to draw: both must see the same entries.
            given.add_node(name, **site)
    model = poutine.replay(_enumerated(programs["model"]), trace=given)
    leftmost = -1 - _plate_nesting(model_trace, guide_trace)
    drawn: Any = infer_discrete(model, first_available_dim=leftmost)
    return poutine.trace(drawn).get_trace(*problem.args, **problem.kwargs)


def independent_of_summed(
    programs: Mapping[str, Program], problem: Problem, model_trace: Any, guide_trace: Any
) -> set[str]:
    """Sites of the model whose values do not depend on the variables that are summed out.

    Where all values of a variable are computed at once, they lie in a dimension left of all plates; so does all that
    depends on it.
    """
    leftmost = -1 - _plate_nesting(model_trace, guide_trace)
    model = poutine.enum(poutine.replay(_enumerated(programs["model"]), trace=guide_trace), leftmost)
    arguments: Any = problem.args
    every: Any = poutine.trace(model).get_trace(*arguments, **problem.kwargs)
    before, after = ({n: s["value"] for n, s in t.nodes.items() if s["type"] == "sample"} for t in (model_trace, every))
    return {
        name
        for name, value in after.items()
        if name in before and getattr(value, "shape", ()) == getattr(before[name], "shape", ())
    }


def _enumerated(model: Program) -> Program:
    return marked(model, _exactly)


def _exactly(site: Any) -> dict[str, Any]:
    """Whatever the estimator does in a fit, here every value counts; variables that are replayed lose this mark."""
    return {"enumerate": "parallel" if is_countable(site) else None, "num_samples": None}


def _plate_nesting(*traces: Any) -> int:
    sites = [site for trace in traces for site in trace.nodes.values() if site["type"] == "sample"]
    return max((-frame.dim for site in sites for frame in site["cond_indep_stack"] if frame.vectorized), default=0)
