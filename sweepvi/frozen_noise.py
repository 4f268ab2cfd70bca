"""What a configuration must say so that a minimizer can run: noise that is frozen, and a gradient that is a loss's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweepvi import registry
from sweepvi.errors import Problem, listed

LINEAR_RESPONSE_GUIDES = ("auto_normal", "auto_diagonal_normal")
"""Independent normals, of which the means have a covariance by linear response."""

FITS_ANY_DRAWS = "is flexible enough to fit any number of frozen draws, on which the mean loss then has no minimum"

_NEEDS = {
    "scheduler": ("constant", "has no step size that a schedule could change"),
    "partition": ("single", "moves all parameters together"),
    "stop": ("steps", "ends by itself, or after engine.steps iterations"),
}
"""Group → the option that it must be, and why."""


def is_minimizer(node: Any) -> bool:
    """Whether an optimizer's node names a minimizer."""
    # Sweeps are planned without torch, as far as that goes.
    from sweepvi.optim import Minimizer

    name = node.get("name") if isinstance(node, Mapping) else None
    return any(row.name == name and issubclass(row.component(), Minimizer) for row in registry.rows("optimizer"))


def problems(config: Mapping[str, Any]) -> list[Problem]:
    """What of a configuration does not go with its optimizer, which is a minimizer; all its nodes are valid by
    themselves.
    """
    name = config["optimizer"]["name"]
    return [
        *_of_noise(config["engine"], name),
        *_of_estimator(config["estimator"], name),
        *_of_guide(config["guide"]["name"], name),
        *(
            Problem.of(group, config[group]["name"], f"must be {option} with optimizer={name}, which {reason}")
            for group, (option, reason) in _NEEDS.items()
            if config[group]["name"] != option
        ),
        *_of_linear_response(config),
    ]


def _of_noise(engine: Mapping[str, Any], name: str) -> Iterator[Problem]:
    if engine["name"] == "eager":
        message = f"optimizer={name} needs frozen noise, which eager has not; use engine=auto with engine.noise=fixed"
        yield Problem.of("engine", "eager", message)
        return
    # A node says nothing of what is left at its default.
    noise, compile_ = engine.get("noise", "fresh"), engine.get("compile", "auto")
    if noise != "fixed":
        message = (
            f"must be fixed with optimizer={name}: it estimates curvature from differences of gradients, and those of "
            "an ELBO are mostly noise unless the noise is frozen; for other noise use clipped_adam, or "
            "schedule_free_prodigy, which has nothing to tune"
        )
        yield Problem.of("engine.noise", noise, message)
    if compile_ == "always":
        message = f"must be auto or never with optimizer={name}, whose objective is traced and not compiled"
        yield Problem.of("engine.compile", compile_, message)


def _of_estimator(estimator: Mapping[str, Any], name: str) -> Iterator[Problem]:
    component = _component("estimator", estimator["name"])
    if component is None or component.pathwise:
        return
    fitting = listed(row.name for row in registry.rows("estimator") if _component("estimator", row.name).pathwise)
    message = (
        f"on frozen noise, its gradient is not the derivative of its loss, which optimizer={name} needs; use {fitting}"
    )
    yield Problem.of("estimator", estimator["name"], message)


def _of_guide(guide: str, name: str) -> Iterator[Problem]:
    component = _component("guide", guide)
    if component is not None and component.flow:
        message = (
            f"{FITS_ANY_DRAWS}; with optimizer={name} use a guide of normals, or clipped_adam with engine.noise=fresh"
        )
        yield Problem.of("guide", guide, message)


def _of_linear_response(config: Mapping[str, Any]) -> Iterator[Problem]:
    if not config["optimizer"].get("linear_response"):
        return
    guide, estimator = config["guide"]["name"], _component("estimator", config["estimator"]["name"])
    if guide not in LINEAR_RESPONSE_GUIDES:
        message = f"is for the means of independent normals, guide={' or guide='.join(LINEAR_RESPONSE_GUIDES)}"
        yield Problem.of("optimizer.linear_response", True, message)
    if estimator is not None and estimator.pathwise and estimator.objective != "-ELBO":
        message = f"is for the ELBO, and estimator={config['estimator']['name']} has another objective; use trace"
        yield Problem.of("optimizer.linear_response", True, message)


def _component(group: str, name: str) -> Any:
    return next((row.component() for row in registry.rows(group) if row.name == name), None)
