"""A sigmoid belief network of handwritten digits: two layers of binary causes.

Neal, "Connectionist Learning of Belief Networks", 1992; with a guide that runs against the arrows, as in Mnih & Gregor,
"Neural Variational Inference and Learning in Belief Networks", 2014. Its draws cannot be differentiated, so its
gradients are those of the score function: a test of estimators.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.models.digits import IMAGES, PIXELS, log_odds, read_digits
from sweepvi.problem import Fresh, Model, Problem


@dataclass(frozen=True)
class DigitsSBN(Model):
    """A sigmoid belief network of 1,797 handwritten digits, with its own guide."""

    brings_guide: ClassVar = True

    hidden: Annotated[tuple[int, int], Key("binary causes in each layer, from the pixels", ge=1)] = (32, 16)
    batch_size: Annotated[int | None, Key("images in each evaluation, at random; null takes all", ge=1, le=IMAGES)] = (
        None
    )

    def problem(self, load: Load) -> Problem:
        """The model with the images of ``data/digits.csv.gz``."""
        del load
        images = read_digits()
        make = partial(SBN, self.hidden, log_odds(images))
        return Problem(Fresh(make), kwargs={"images": images, "batch_size": self.batch_size})


SPARSE = -1.0
"""Log odds of a cause at the start, in the model: about one in four is on."""


class SBN(nn.Module):
    """The model, as it is called, and its guide, with their weights.

    Args:
        hidden: binary causes in the layer above the pixels, ``z1``, and in the one above that, ``z2``.
        pixels: where the log odds of black start, shape [64].

    """

    def __init__(self, hidden: tuple[int, int], pixels: Tensor) -> None:
        super().__init__()
        self.decoder = Decoder(hidden, pixels)
        first, second = hidden
        self.encoder = nn.ModuleList([nn.Linear(PIXELS, first), nn.Linear(first, second)])

    def forward(self, images: Tensor, batch_size: int | None = None) -> None:
        """The model.

        Args:
            images: black 1 and white 0, shape [images, 64].
            batch_size: how many are taken, at random; their densities are scaled up to all.

        """
        decoder: Any = pyro.module("decoder", self.decoder)
        with pyro.plate("digits", len(images), subsample_size=batch_size) as batch:
            z2 = pyro.sample("z2", binary(decoder.top))
            z1 = pyro.sample("z1", binary(decoder.middle(z2)))
            pyro.sample("x", binary(decoder.pixels(z1)), obs=images[batch])

    def guide(self, images: Tensor, batch_size: int | None = None) -> dict[str, Tensor]:
        """The guide: causes from what they cause, linear in log odds. Arguments as the model's.

        Returns the draw: ``z1`` of shape [batch, first] and ``z2`` of shape [batch, second]; more dimensions on the
        left where draws are vectorised.
        """
        encoder: Any = pyro.module("encoder", self.encoder)
        of_image, of_cause = encoder
        with pyro.plate("digits", len(images), subsample_size=batch_size) as batch:
            z1 = pyro.sample("z1", binary(of_image(images[batch])))
            return {"z1": z1, "z2": pyro.sample("z2", binary(of_cause(z1)))}


class Decoder(nn.Module):
    """The model's weights: log odds of ``z2``, and linear layers from ``z2`` to ``z1`` and from ``z1`` to pixels."""

    def __init__(self, hidden: tuple[int, int], pixels: Tensor) -> None:
        super().__init__()
        first, second = hidden
        self.top = nn.Parameter(torch.full((second,), SPARSE))
        self.middle = biased(nn.Linear(second, first), torch.full((first,), SPARSE))
        self.pixels = biased(nn.Linear(first, PIXELS), pixels)


def biased(layer: nn.Linear, bias: Tensor) -> nn.Linear:
    """The layer with a bias that starts at ``bias``."""
    with torch.no_grad():
        layer.bias.copy_(bias)
    return layer


def binary(log_odds: Tensor) -> TorchDistribution:
    """Independent binary variables, one an entry of the last dimension."""
    return dist.Bernoulli(logits=log_odds).to_event(1)
