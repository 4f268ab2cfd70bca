"""What there is to judge a fit by, from its outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sweepvi.diagnostics import importance_weights
from sweepvi.engine import Outcome
from sweepvi.engine.fresh_draws import FreshDraws, Sites
from sweepvi.verdict import Evidence


def evidence_of(
    outcome: Outcome,
    elbo: float | None,
    ends: Sequence[float | None],
    agreeing: int,
    r_hats: Iterable[float],
    asked: int,
) -> Evidence:
    """All of it.

    Args:
        outcome: of the fit.
        elbo: its own; None unless it finished.
        ends: ELBOs of all fits from which it was chosen, itself among them: None of those that did not finish.
        agreeing: how many of them agree with the best.
        r_hats: of parameters over them.
        asked: how many draws of the posterior were wanted.

    """
    fresh = outcome.fresh or FreshDraws(Sites({}, (), ()))
    # Without draws of their own, those of the score have to do.
    weights = fresh.weights or importance_weights(outcome.log_weights, smooth=asked > 0)
    table = fresh.posterior
    shift, shift_of = table.largest_shift if table is not None else (None, "")
    error, error_of = table.largest_error if table is not None else (None, "")
    return Evidence(
        status=outcome.status,
        message=outcome.message,
        elbo=elbo,
        latent=len(fresh.sites.latent),
        points=fresh.sites.points,
        draws=weights.draws,
        nonfinite=weights.nonfinite,
        sd_log_weights=weights.sd,
        k_hat=weights.k_hat,
        why_no_k_hat="" if asked else "engine.posterior_draws=0",
        ess=weights.ess,
        largest=weights.largest,
        minibatches=bool(outcome.score_note),
        shift=shift,
        shift_of=shift_of,
        error=error,
        error_of=error_of,
        restarts=len(ends),
        finished=sum(end is not None for end in ends),
        agreeing=agreeing,
        r_hat=max((value for value in r_hats if math.isfinite(value)), default=None),
        modes=None if outcome.modes is None else [(mode.log_evidence, mode.log_q) for mode in outcome.modes],
    )
