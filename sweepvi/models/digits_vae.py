"""A variational autoencoder of handwritten digits.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014: an image has a point in a space of few dimensions, from which
a network, the decoder, computes how likely each pixel is black. The model's own guide has the point from the image by
another network, the encoder. The decoder's last bias is a latent variable that all images share, so that there are
weights of networks and variational parameters, as ``partition=nn_variational`` tells apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import pyro
import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor, nn

from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.models.digits import IMAGES, PIXELS, log_odds, perceptron, read_digits
from sweepvi.problem import Fresh, Model, Problem


@dataclass(frozen=True)
class DigitsVAE(Model):
    """A variational autoencoder of 1,797 handwritten digits, with its own guide."""

    brings_guide: ClassVar = True

    latent: Annotated[int, Key("dimensions of an image's latent point", ge=1)] = 8
    hidden: Annotated[tuple[int, ...], Key("units of each hidden layer, from the pixels", ge=1)] = (128,)
    batch_size: Annotated[int | None, Key("images in each evaluation, at random; null takes all", ge=1, le=IMAGES)] = (
        None
    )

    def problem(self, load: Load) -> Problem:
        """The model with the images of ``data/digits.csv.gz``."""
        del load
        images = read_digits()
        make = partial(VAE, self.latent, self.hidden, log_odds(images))
        return Problem(Fresh(make), kwargs={"images": images, "batch_size": self.batch_size})


BIAS_SD = 5.0
"""The prior of a pixel's log odds where the decoder says nothing: nearly any."""


class VAE(nn.Module):
    """The model, as it is called, and its guide, with their networks.

    Args:
        latent: dimensions of the latent space.
        hidden: units of the encoder's hidden layers; the decoder's are the same in reverse.
        bias: where the guide's mean of the bias starts, log odds of black, shape [64].

    """

    def __init__(self, latent: int, hidden: tuple[int, ...], bias: Tensor) -> None:
        super().__init__()
        self.latent = latent
        self.bias = bias
        self.decoder = perceptron((latent, *reversed(hidden), PIXELS), last_bias=False)
        self.encoder = perceptron((PIXELS, *hidden, 2 * latent))

    def forward(self, images: Tensor, batch_size: int | None = None) -> None:
        """The model.

        Args:
            images: black 1 and white 0, shape [images, 64].
            batch_size: how many are taken, at random; their densities are scaled up to all.

        """
        decoder: Any = pyro.module("decoder", self.decoder)
        bias = pyro.sample("bias", dist.Normal(images.new_zeros(PIXELS), BIAS_SD).to_event(1))
        with pyro.plate("digits", len(images), subsample_size=batch_size) as batch:
            z = pyro.sample("z", dist.Normal(images.new_zeros(self.latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z) + bias).to_event(1), obs=images[batch])

    def guide(self, images: Tensor, batch_size: int | None = None) -> dict[str, Tensor]:
        """The guide: normal, an image's latent point around where the encoder puts it. Arguments as the model's.

        Returns the draw: ``bias`` of shape [64] and ``z`` of shape [batch, latent]; more dimensions on the left where
        draws are vectorised.
        """
        encoder: Any = pyro.module("encoder", self.encoder)
        loc = pyro.param("bias_loc", lambda: self.bias.to(images, copy=True))
        scale = pyro.param("bias_scale", images.new_full((PIXELS,), 0.1), constraint=constraints.positive)
        bias = pyro.sample("bias", dist.Normal(loc, scale).to_event(1))
        with pyro.plate("digits", len(images), subsample_size=batch_size) as batch:
            center, log_sd = encoder(images[batch]).chunk(2, dim=-1)
            return {"bias": bias, "z": pyro.sample("z", dist.Normal(center, log_sd.exp()).to_event(1))}
