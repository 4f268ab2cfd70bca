"""A network that predicts a site's cost: Mnih & Gregor, "Neural Variational Inference and Learning in Belief
Networks", 2014, sections 2.3 and 2.4.

It predicts what is left of the cost when its decaying average is taken away, in units of the standard deviation of
that, as the paper's variance normalisation does: costs are hundreds of nats, and no network of moderate step size
would reach them. Its loss is in the same units, so that its gradient is of the size of others whatever the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyro
import torch
from torch import Tensor, nn

from sweepvi.estimators.baselines.average import OWN_PARAMETERS, before_and_update


class BaselineNetwork(nn.Module):
    """A perceptron from features to a predicted cost; zero at first."""

    def __init__(self, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [features, *hidden]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        last = nn.Linear(sizes[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape [*batch, features] to a prediction of shape [*batch]."""
        return self.layers(features).squeeze(-1)


def registered(site: str, network: nn.Module) -> nn.Module:
    """The network, its parameters in the parameter store under ``estimator.baseline.SITE``: there, they are trained."""
    return pyro.module(OWN_PARAMETERS + site, network)


def network_baseline(
    site: str, network: nn.Module, features: Tensor, cost: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """The baseline of ``cost``, of its shape and without gradient, and the loss that trains the network, shape [].

    Args:
        site: name of the site.
        network: predicts standardised costs.
        features: what it knows, shape [*cost.shape, features].
        cost: in nats.
        beta: decay of the averages of the cost and of its square deviation.

    """
    average = before_and_update(site, cost, beta)
    variance = before_and_update(f"{site}/variance", (cost - average).square().mean(), beta)
    # Before the first cost, nothing is known of its size.
    scale = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
    prediction = network(features)
    loss = ((cost - average) / scale - prediction).square().mean()
    return average + scale * prediction.detach(), loss
