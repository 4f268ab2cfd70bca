"""What people ask for by name and should not have, with the reason and what to use instead."""

from __future__ import annotations

_COMPILED = {
    "jit_trace": "trace",
    "jit_trace_graph": "trace_graph",
    "jit_trace_enum": "trace_enum",
    "jit_trace_mean_field": "trace_mean_field",
    "jittrace_elbo": "trace",
    "jittracegraph_elbo": "trace_graph",
    "jittraceenum_elbo": "trace_enum",
    "jittracemeanfield_elbo": "trace_mean_field",
}

REFUSED = {
    **{
        ("estimator", name): (
            "refused: Pyro's compiled estimators record the first run of model and guide and repeat that from then on, "
            f"whatever the programs would do next (branches, late parameters); use {plain}"
        )
        for name, plain in _COMPILED.items()
    },
}


def refusal(group: str, name: str) -> str | None:
    """Why an option is not to be had, if it is refused rather than unknown."""
    return REFUSED.get((group, name.casefold()))
