"""Baselines that the guide's author has written: ``infer={"baseline": {…}}``, with the meaning that Pyro gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import detach
from torch import Tensor, nn

from sweepvi.errors import ConfigError, Problem, unknown
from sweepvi.estimators.baselines.average import before_and_update

OPTIONS = ("nn_baseline", "nn_baseline_input", "use_decaying_avg_baseline", "baseline_beta", "baseline_value")


def problems_of(site: str, options: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a site's options."""
    where = f"guide: infer baseline of {site}"
    found = [Problem(where, unknown("option", str(name), OPTIONS)) for name in options if name not in OPTIONS]
    if options.get("nn_baseline") is not None and options.get("baseline_value") is not None:
        found.append(Problem(where, "has both nn_baseline and baseline_value; give one"))
    if options.get("nn_baseline") is not None and options.get("nn_baseline_input") is None:
        found.append(Problem(where, "has nn_baseline without nn_baseline_input"))
    beta = options.get("baseline_beta", 0.0)
    if isinstance(beta, float | int) and not 0 <= beta < 1:
        found.append(Problem.of(f"{where}: baseline_beta", beta, "must be a number >= 0 and < 1"))
    return found


def network_of(options: Mapping[str, Any]) -> nn.Module | None:
    """The site's network, if it has one that has parameters."""
    network = options.get("nn_baseline")
    return network if isinstance(network, nn.Module) else None


def given_baseline(site: str, options: Mapping[str, Any], cost: Tensor, beta: float) -> tuple[Tensor | None, Tensor]:
    """The baseline of ``cost`` without gradient, or None; and the loss that trains it, shape []."""
    baseline: Any = None
    predicted = _predicted(options)
    if options.get("use_decaying_avg_baseline"):
        baseline = before_and_update(site, cost, options.get("baseline_beta", beta))
    if predicted is not None:
        baseline = predicted if baseline is None else baseline + predicted
    if baseline is None:
        return None, torch.zeros(())
    if baseline.shape != cost.shape:
        message = f"has shape {tuple(baseline.shape)}, but the cost of the site has {tuple(cost.shape)}"
        raise ConfigError([Problem(f"guide: infer baseline of {site}", message)])
    loss = torch.zeros(()) if predicted is None else (cost - baseline).square().sum()
    return baseline.detach(), loss


def _predicted(options: Mapping[str, Any]) -> Tensor | None:
    if options.get("nn_baseline") is not None:
        return options["nn_baseline"](detach(options["nn_baseline_input"]))
    return options.get("baseline_value")
