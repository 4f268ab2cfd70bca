"""Models that draw their data instead of reading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.poutine.uncondition_messenger import UnconditionMessenger

from sweepvi.errors import ConfigError, Problem, listed
from sweepvi.estimators.sites import distribution_name
from sweepvi.private import is_deterministic


class MakeUpData(UnconditionMessenger):
    """Inside, sites with data are drawn; Pyro's own draws ``pyro.deterministic`` values, too, and misshapes them."""

    def _pyro_sample(self, msg: Any) -> None:
        if not is_deterministic(msg):
            super()._pyro_sample(msg)


def made_up(model_trace: Any) -> Mapping[str, Any]:
    """The sites whose data were drawn; ``ConfigError`` if there are none, or some have nothing to draw."""
    sites = {
        name: site
        for name, site in model_trace.nodes.items()
        if site["type"] == "sample" and site["infer"].get("was_observed")
    }
    if not sites:
        raise ConfigError([Problem("model", "has no site with data, but the estimator is to draw data")])
    factors = [name for name, site in sites.items() if distribution_name(site["fn"]) == "Unit"]
    if factors:
        message = f"the estimator draws data of the model, but {listed(factors)} (pyro.factor) has only a density"
        raise ConfigError([Problem("model", message)])
    return sites
