"""Each rank's own random draws: a function of seed, rank and step, so that nothing of them has to be saved."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_rank(seed: int, rank: int, draw: int) -> None:
    """Let Python's, NumPy's and torch's generators start from a stream of its own for each seed, rank and draw.

    Args:
        seed: the fit's.
        rank: from 0.
        draw: number of the gradient that is about to be estimated, from 0.

    """
    digest = hashlib.blake2b(f"{seed} {rank} {draw}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    torch.manual_seed(number >> 1)
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
