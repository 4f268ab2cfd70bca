"""The files of a run folder: their names, and the text in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

CONFIG, PRESET, RESULT, LOSSES, PARAMS, POSTERIOR, CHECKPOINT = (
    "config.yaml",
    "preset.yaml",
    "result.json",
    "losses.csv",
    "params.safetensors",
    "posterior.csv",
    "checkpoint.safetensors",
)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, with how to use it."""
    usage = "# The complete configuration of this run. Repeat it: python -m sweepvi rerun=THIS_FOLDER\n"
    return usage + OmegaConf.to_yaml(OmegaConf.create(dict(config)))


SAID = "said"
"""The key, in ``preset.yaml``, of what the user has decided about."""


def preset_text(config: Mapping[str, Any], said: Iterable[str]) -> str:
    """What ``preset=auto`` started from, as YAML: the configuration, and what of it was not the preset's to choose."""
    usage = "# What preset=auto started from. Go on if it was stopped: python -m sweepvi resume=THIS_FOLDER\n"
    return usage + OmegaConf.to_yaml(OmegaConf.create({SAID: sorted(said), **config}))


SINGLE = "all"
"""The label of the group of parameters if there is only one."""


def losses_text(losses: Tensor, rates: Mapping[str, Tensor]) -> str:
    """Losses, and effective step sizes by group of parameters, each of shape [steps], as CSV.

    The step sizes are in the column ``lr`` if there is one group, in ``lr_LABEL`` each if there are several. Numbers
    read back to the last bit.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "loss", *("lr" if label == SINGLE else f"lr_{label}" for label in rates)])
    columns = [losses, *rates.values()]
    for step, row in enumerate(zip(*(column.tolist() for column in columns), strict=True), start=1):
        writer.writerow([step, *map(repr, row)])
    return text.getvalue()


def read_losses(path: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses, and effective step sizes by group, of a run folder's CSV: float64, each of shape [steps]."""
    with path.open(encoding="utf-8", newline="") as file:
        _, _, *names = header = next(reader := csv.reader(file))
        rows = [[float(entry) for entry in row] for row in reader]
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(header)).unbind(1)
    labels = [SINGLE if name == "lr" else name.removeprefix("lr_") for name in names]
    return columns[1], dict(zip(labels, columns[2:], strict=True))
