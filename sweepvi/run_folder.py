"""The files of a run folder: their names, and the text in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

CONFIG, RESULT, LOSSES, PARAMS, CHECKPOINT = (
    "config.yaml",
    "result.json",
    "losses.csv",
    "params.safetensors",
    "checkpoint.safetensors",
)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, with how to use it."""
    usage = "# The complete configuration of this run. Repeat it: python -m sweepvi rerun=THIS_FOLDER\n"
    return usage + OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def losses_text(losses: Tensor, rates: Tensor) -> str:
    """Losses and effective step sizes, each of shape [steps], as CSV; numbers read back to the last bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "loss", "lr"])
    for step, (loss, rate) in enumerate(zip(losses.tolist(), rates.tolist(), strict=True), start=1):
        writer.writerow([step, repr(loss), repr(rate)])
    return text.getvalue()


def read_losses(path: Path) -> tuple[Tensor, Tensor]:
    """Losses and effective step sizes of a run folder's CSV: float64, each of shape [steps]."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    losses, rates = ([float(row[name]) for row in rows] for name in ("loss", "lr"))
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(rates, dtype=torch.float64)
