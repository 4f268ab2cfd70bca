"""Partitions by what parameters are for, with a name and settings for each group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from sweepvi.keys import Key, keys_of
from sweepvi.partition.group import Group, Kind, Overrides
from sweepvi.partition.partition import Partition, Place


@dataclass(frozen=True)
class ByKind(Partition):
    """A partition whose keys are groups; subclasses say which kind each takes."""

    kinds: ClassVar[dict[str, Kind]]

    def places(self) -> dict[str, Place]:
        """The groups; one may be empty if nothing has been set for it, or if it is for the rest."""
        defaults = {spec.name: spec.default for spec in keys_of(type(self))}
        return {
            label: Place(self._group(label), label, required=getattr(self, label) != defaults[label] and kind != "rest")
            for label, kind in self.kinds.items()
        }

    def _group(self, label: str) -> Group:
        values = {spec.name: getattr(getattr(self, label), spec.name) for spec in keys_of(Overrides)}
        return Group(kind=self.kinds[label], **values)


@dataclass(frozen=True)
class LocScale(ByKind):
    """Locations and scales of the guide apart: scales often want smaller steps."""

    kinds: ClassVar = {"loc": "loc", "scale": "scale", "rest": "rest"}

    loc: Annotated[Overrides, Key("what is different for locations")] = field(default_factory=Overrides)
    scale: Annotated[Overrides, Key("what is different for scales")] = field(default_factory=Overrides)
    rest: Annotated[Overrides, Key("what is different for all others")] = field(default_factory=Overrides)


@dataclass(frozen=True)
class NNVariational(ByKind):
    """Weights of neural networks, and variational parameters, apart."""

    kinds: ClassVar = {"nn": "nn", "variational": "rest"}

    nn: Annotated[Overrides, Key("what is different for weights of networks")] = field(default_factory=Overrides)
    variational: Annotated[Overrides, Key("what is different for all others")] = field(default_factory=Overrides)


@dataclass(frozen=True)
class BaselineNetworks(ByKind):
    """Networks that predict baselines, apart from all others: they usually want larger steps."""

    kinds: ClassVar = {"baseline": "baseline", "rest": "rest"}

    baseline: Annotated[Overrides, Key("what is different for networks of baselines")] = field(
        default_factory=lambda: Overrides(lr_factor=10.0)
    )
    rest: Annotated[Overrides, Key("what is different for all others")] = field(default_factory=Overrides)
