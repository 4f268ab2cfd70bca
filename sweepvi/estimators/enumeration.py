"""Which discrete variables are summed over, and how programs are told.

Pyro's estimators read it off each site's ``infer``. Here it is written there for sites that say nothing themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine
from pyro.poutine.infer_config_messenger import InferConfigMessenger

from sweepvi.errors import Problem, listed
from sweepvi.estimators.sites import LatentSite, is_countable, is_latent
from sweepvi.guides.guide import Program

Infer = Callable[[Any], dict[str, Any]]
"""What to write into the ``infer`` of a site."""


def marked(program: Program, infer: Infer) -> Program:
    """A program with more in the ``infer`` of its latent variables; its attributes are the program's own."""
    return _Marked(_run, infer, program)


class _Marked(functools.partial[Any]):
    """A partial application, so that what runs is found in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.args[1], name)


def _run(infer: Infer, program: Program, *args: Any, **kwargs: Any) -> Any:
    of_latent: Any = functools.partial(_of_latent, infer)
    with InferConfigMessenger(of_latent):
        return program(*args, **kwargs)


def _of_latent(infer: Infer, site: Any) -> dict[str, Any]:
    return infer(site) if is_latent(site) else {}


def countable_by(infer: dict[str, Any]) -> Infer:
    """Write ``infer`` where a variable can be enumerated and does not say itself whether it is."""
    return lambda site: infer if is_countable(site) and "enumerate" not in site["infer"] else {}


def without_enumerated(model: Program) -> Program:
    """A model as an autoguide is to see it: what is summed over needs no guide, and most autoguides fail on it."""
    return poutine.block(model, hide_fn=_is_enumerated)


def _is_enumerated(site: Any) -> bool:
    return is_latent(site) and is_countable(site) and bool(site["infer"].get("enumerate"))


def not_summed(sites: Mapping[str, LatentSite]) -> list[Problem]:
    """Variables of the model alone that are not summed over either."""
    missing = {name: site for name, site in sites.items() if not site.in_guide}
    known = listed(name for name, site in sites.items() if site.in_guide) or "(none)"
    endless = [f"{name} ({site.distribution})" for name, site in missing.items() if not site.countable]
    skipped = [name for name, site in missing.items() if site.countable and not site.enumerated]
    one_by_one = [name for name, site in missing.items() if site.countable and site.enumerated == "sequential"]
    problems = []
    if endless:
        message = f"has no {listed(endless)}, which the model has and which cannot be summed over; its own: {known}"
        problems.append(Problem("guide", message))
    if skipped:
        message = f"has no {listed(skipped)}, which the model has; its own: {known}. enumerate=parallel sums over them"
        problems.append(Problem("guide", message))
    if one_by_one:
        message = f"{listed(one_by_one)} is in the model alone, where only enumerate=parallel can sum over it"
        problems.append(Problem("estimator.enumerate", message))
    return problems


def nothing_enumerated(sites: Mapping[str, LatentSite]) -> list[Problem]:
    """Whether there is no variable to sum over."""
    if any(site.enumerated for site in sites.values()):
        return []
    known = listed(name for name, site in sites.items() if site.in_model) or "(none)"
    message = f"finds no latent variable that it is to enumerate; there are: {known}. Use trace, or trace_graph"
    return [Problem("estimator", message)]
