"""Handwritten digits in black and white: what the models of digits share.

Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998: the 1,797 images
of its test set, of 8 × 8 pixels.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise

import torch
from torch import Tensor, nn

IMAGES = 1797
PIXELS = 64
INK = 8
"""A pixel is black if at least this many of the 16 points of the scan that it covers are ink: half of them."""


def read_digits() -> Tensor:
    """The images, black 1 and white 0, row by row: float64, shape [1797, 64]."""
    packed = (files("sweepvi") / "models" / "data" / "digits.csv.gz").read_bytes()
    lines = [line for line in gzip.decompress(packed).decode().splitlines() if not line.startswith("#")]
    grey = torch.tensor([[int(number) for number in line.split(",")[:PIXELS]] for line in lines[1:]])
    return (grey >= INK).double()


def log_odds(images: Tensor) -> Tensor:
    """How likely each pixel is black, as log odds: shape [64]; finite where it always or never is.

    What starts here has nothing to learn about the mean image.
    """
    return torch.logit((images.sum(0) + 0.5) / (len(images) + 1))


def perceptron(sizes: Sequence[int], last_bias: bool = True) -> nn.Sequential:
    """Linear layers of these sizes, input first, with tanh between them."""
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        parts += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*parts, nn.Linear(sizes[-2], sizes[-1], bias=last_bias))
