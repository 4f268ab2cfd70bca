"""All baselines of a fit: which site has which, and what each subtracts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sweepvi.estimators.baselines.average import before_and_update
from sweepvi.estimators.baselines.declaration import Baseline, Kind
from sweepvi.estimators.baselines.given import given_baseline, network_of
from sweepvi.estimators.baselines.inputs import features
from sweepvi.estimators.baselines.network import BaselineNetwork, network_baseline, registered
from sweepvi.estimators.sites import entry_for
from sweepvi.private import unconstrained_params

NONE = Baseline(kind="none")


class Baselines:
    """The baselines of one fit, with the networks that are theirs.

    Args:
        declared: by site or glob over sites; see ``entry_for``. A guide's own goes before all of them.
        beta: decay of averages where nothing else is said.

    """

    def __init__(self, declared: Mapping[str, Kind | Baseline], beta: float) -> None:
        self.declared = declared
        self.beta = beta
        self.networks: dict[str, nn.Module] = {}
        """By site, those that learn."""

    def of(self, site: str) -> Baseline:
        """What is declared for a site."""
        return declared_for(site, self.declared)

    def meet(self, guide_trace: Any, costs: Mapping[str, Tensor]) -> None:
        """Create the networks of sites that are new, and see to it that they are trained: a guide's own, too."""
        for name, cost in costs.items():
            if name in self.networks:
                continue
            options = guide_trace.nodes[name]["infer"].get("baseline")
            if options:
                network = network_of(options)
                if network is not None and not _in_store(network):
                    self.networks[name] = registered(name, network)
            elif self.of(name).kind == "network":
                known = features(name, guide_trace, cost.shape)
                network = BaselineNetwork(known.shape[-1], self.of(name).hidden).to(cost.device, cost.dtype)
                self.networks[name] = registered(name, network)

    def subtracted(self, name: str, guide_trace: Any, cost: Tensor) -> tuple[Tensor, Tensor]:
        """The cost less its baseline, of its shape; and the loss that trains the baseline, shape []. Neither carries
        gradient to anything but the baseline's own parameters.
        """
        options = guide_trace.nodes[name]["infer"].get("baseline")
        if options:
            baseline, loss = given_baseline(name, options, cost, self.beta)
            return cost if baseline is None else cost - baseline, loss
        declared = self.of(name)
        beta = self.beta if declared.beta is None else declared.beta
        nothing = torch.zeros(())
        if declared.kind == "decaying":
            return cost - before_and_update(name, cost, beta), nothing
        if declared.kind == "value":
            return cost - declared.value, nothing
        if declared.kind == "network":
            known = features(name, guide_trace, cost.shape)
            baseline, loss = network_baseline(name, self.networks[name], known, cost, beta)
            return cost - baseline, loss
        return cost, nothing


def declared_for(site: str, declared: Mapping[str, Kind | Baseline]) -> Baseline:
    """The declaration that counts for a site: kind ``none`` if there is none."""
    entry = entry_for(site, declared)
    return NONE if entry is None else Baseline.of(declared[entry])


def _in_store(network: nn.Module) -> bool:
    """Whether what the network learns is in the parameter store already, by the guide's own doing."""
    known = {id(tensor) for tensor in unconstrained_params().values()}
    return all(id(parameter) in known for parameter in network.parameters())
