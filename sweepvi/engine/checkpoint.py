"""Checkpoints: one safetensors file, written in one piece, checked when read; no pickle.

The header holds the scalars as JSON, and a digest of all tensors, so that a half-written, damaged or foreign file is
told from a good one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sweepvi.errors import CheckpointError
from sweepvi.files import write_atomically

FORMAT = "sweepvi-checkpoint-2"


@dataclass
class Snapshot:
    """A state in parts: tensors by ``/``-separated name, and what goes into JSON."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def put(self, part: str, tensors: Mapping[str, Tensor], meta: Any = None) -> None:
        """Add a part: a copy of its tensors, on the CPU, and its scalars."""
        for name, tensor in tensors.items():
            self.tensors[f"{part}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()
        self.meta[part] = meta

    def get(self, part: str) -> tuple[dict[str, Tensor], Any]:
        """The tensors and scalars of a part; ``CheckpointError`` if the snapshot has no such part."""
        if part not in self.meta:
            raise CheckpointError(f"the checkpoint has nothing about {part}; was the model changed since?")
        prefix = f"{part}/"
        tensors = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        return tensors, self.meta[part]


class Checkpoint:
    """A checkpoint file of the fit whose configuration has the fingerprint ``fingerprint``; None is any, to read."""

    def __init__(self, path: Path, fingerprint: str | None) -> None:
        self.path = path
        self.fingerprint = fingerprint

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file, in one piece."""
        header = {
            "format": FORMAT,
            "fingerprint": self.fingerprint or "",
            "digest": digest_of(snapshot.tensors),
            "meta": json.dumps(snapshot.meta),
        }
        write_atomically(self.path, save(snapshot.tensors, header))

    def load(self) -> Snapshot:
        """Read the file; ``CheckpointError`` if it is missing, damaged, or of another configuration."""
        header, tensors = _read(self.path)
        if header.get("format") != FORMAT or not header.keys() >= {"fingerprint", "digest", "meta"}:
            raise CheckpointError(f"{self.path} is not a checkpoint of this version ({FORMAT}), or damaged")
        if self.fingerprint is None:
            self.fingerprint = header["fingerprint"]
        if header["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.path} belongs to another configuration (it has {header['fingerprint']}, "
                f"this one {self.fingerprint}); a checkpoint resumes only the fit that wrote it. "
                "A schedule whose length is null is another one when engine.steps changes"
            )
        if header["digest"] != digest_of(tensors):
            raise CheckpointError(f"{self.path} is damaged: its content does not match its digest")
        return Snapshot(tensors, json.loads(header["meta"]))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or only half written: {error}") from error


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).cpu().numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
