"""A site's baseline as a configuration declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from sweepvi.keys import Key, Keyed, keys_of

Kind: TypeAlias = Literal["none", "decaying", "network", "value"]

_FOR = {"beta": ("decaying", "network"), "hidden": ("network",), "value": ("value",)}


@dataclass(frozen=True)
class Baseline(Keyed):
    """What is subtracted from a site's cost."""

    kind: Annotated[
        Kind,
        Key("none, the decaying average of past costs, a network that predicts the cost, or a value that is given"),
    ]
    beta: Annotated[float | None, Key("decay of averages; null: the estimator's baseline_beta", ge=0, lt=1)] = None
    hidden: Annotated[tuple[int, ...], Key("sizes of the network's hidden layers", ge=1)] = (32,)
    value: Annotated[float, Key("the value that is given, in nats")] = 0.0

    def conflicts(self) -> dict[str, str]:
        """A key that the kind does not use must be left at its default."""
        defaults = {spec.name: spec.default for spec in keys_of(Baseline)}
        return {
            name: f"is used by kind={' and kind='.join(kinds)} only"
            for name, kinds in _FOR.items()
            if self.kind not in kinds and getattr(self, name) != defaults[name]
        }

    @classmethod
    def of(cls, declared: Kind | Baseline) -> Baseline:
        """The baseline that a configuration's entry, a kind alone or a mapping, stands for."""
        return declared if isinstance(declared, Baseline) else cls(kind=declared)
