"""What people ask for by name and should not have, with the reason and what to use instead."""

from __future__ import annotations

REFUSED = {
    ("optimizer", "lbfgs"): (
        "refused: it estimates curvature from differences of gradients, and those of an ELBO are mostly noise. It is "
        "sound only where the noise is frozen, which no engine does yet; use clipped_adam, or "
        "schedule_free_prodigy, which has nothing to tune"
    ),
}


def refusal(group: str, name: str) -> str | None:
    """Why an option is not to be had, if it is refused rather than unknown."""
    return REFUSED.get((group, name.casefold()))
