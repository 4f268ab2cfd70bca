"""Whether to believe a fit, and why: numbers in, a verdict out. The rules are told in docs/verdict.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from sweepvi.diagnostics import ESS_ALIKE, k_limit

Trust: TypeAlias = Literal["yes", "caution", "no"]

K_NO_MEAN = 1.0
"""From this k-hat on, the weights have no mean: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto Smoothed Importance
Sampling", 2024."""

K_GOOD, ESS_GOOD = 0.5, 400.0
"""Weights of finite variance (the same paper), and as many effective draws as Vehtari, Gelman, Simpson, Carpenter &
Bürkner, "Rank-Normalization, Folding, and Localization: An Improved R-hat", 2021, ask for: where corrected means can be
relied on, whatever they correct."""

ENOUGH_DRAWS = 2155
"""Draws from which on the limit of k-hat is 0.7: 1 - 1 / log10(S), the same paper."""

SPREAD_WIDE, SPREAD_ABSURD = 5.0, 20.0
"""Standard deviation of log weights, in nats. Of good fits of 21 posteriors it was 0.16 to 1.6 (10 to 90 %); at 5, the
weights of a normal's worth of them span e²⁰; a density that is wrong somewhere gives hundreds. So does a guide that is
much wider than the posterior: most of its draws weigh next to nothing, which harms none of the others."""

ESS_LEAST = 100.0
"""Effective draws below which a corrected mean has an error of a tenth of the standard deviation."""

LARGEST_SHARE = 0.5
"""Of one draw's weight in the sum of all: more than the others together. The largest of 10,000 weights with a Pareto
tail of shape 0.7 has that in 0.6 % of samples, of shape 0.6 in 0.1 %: there is more of the posterior where it was."""

MISSING_LITTLE = 0.01
"""Share of the posterior beyond the draws: it moves a mean by a tenth of a standard deviation if it is ten away."""

SPREAD_NONE = 0.01
"""Below this, all draws weigh the same to a hundredth: there is no tail for a k-hat, and nothing to mend."""

SHIFT_LARGE = 0.5
"""Of corrected from plain means, in standard deviations."""

ERROR_LARGE = 0.1
"""Monte Carlo error of a reported mean, in standard deviations."""

MODE_NEAR, MODE_EMPTY = 3.0, 10.0
"""A mode counts if its evidence is at most this many nats below the ELBO; it is missed if the guide's log density at it
is this many nats below that at the mode that it covers best."""


SHOWN = 3
"""Reasons on the screen, at most."""


@dataclass(frozen=True)
class Verdict:
    """Whether to believe a fit."""

    trust: Trust
    reasons: list[str]
    """Why not more, the gravest first; empty if the trust is ``yes``."""
    numbers: dict[str, Any]
    """What it was judged by: see docs/verdict.md."""

    def __str__(self) -> str:
        """A line, and another with the reasons if there are any."""
        facts = ", ".join(filter(None, [_k_hat_in_words(self.numbers), _restarts_in_words(self.numbers)]))
        line = f"trust: {self.trust}" + (f" — {facts}" if facts else "")
        if not self.reasons:
            return line
        shown, more = self.reasons[:SHOWN], len(self.reasons) - SHOWN
        return f"{line}\n  because {'; '.join(shown)}" + (f"; and {more} more in result.json" if more > 0 else "")


@dataclass(frozen=True)
class Evidence:
    """What there is to judge a fit by; None where it is not known."""

    status: str = "finished"
    message: str = ""
    elbo: float | None = None
    latent: int = 1
    """Continuous latent variables."""
    points: Sequence[str] = ()
    """Those of them to which the guide gives one value."""
    draws: int = 0
    nonfinite: int = 0
    sd_log_weights: float | None = None
    k_hat: float | None = None
    why_no_k_hat: str = ""
    ess: float | None = None
    largest: float | None = None
    """The largest weight's share of the sum of all, not smoothed."""
    minibatches: bool = False
    """Whether weights are of minibatches, scaled up, instead of all the data."""
    shift: float | None = None
    """The largest distance of a corrected from a plain mean, in standard deviations."""
    shift_of: str = ""
    error: float | None = None
    """The largest Monte Carlo error of a reported mean, in standard deviations."""
    error_of: str = ""
    restarts: int = 1
    """Fits from which this was chosen, itself among them."""
    finished: int = 1
    agreeing: int = 1
    """Finished ones whose ELBO is that of the best, itself among them."""
    r_hat: float | None = None
    modes: Sequence[tuple[float, float]] | None = None
    """Log evidence of each mode that was found, and the guide's log density at it; None if nobody looked."""

    def numbers(self) -> dict[str, Any]:
        """What of it a reader may want."""
        plain = {key: _finite(value) for key, value in asdict(self).items() if key not in _NO_NUMBERS}
        missed = None if self.modes is None else len(_missed(self))
        modes = None if self.modes is None else len(self.modes)
        counts = {"points": len(self.points), "modes": modes, "modes_missed": missed}
        return {**plain, "k_limit": _finite(k_limit(self.draws)), **counts}


_NO_NUMBERS = ("status", "message", "elbo", "points", "why_no_k_hat", "modes")


@dataclass(frozen=True)
class _Doubt:
    trust: Trust
    reason: str


def judged(evidence: Evidence) -> Verdict:
    """The verdict on a fit: that of the rule that trusts it least."""
    if evidence.status != "finished":
        return Verdict("no", [_unfinished(evidence)], evidence.numbers())
    rules = [*_ALWAYS, *(_OF_WEIGHTS if _weights_count(evidence) else ())]
    doubts = [doubt for rule in rules if (doubt := rule(evidence)) is not None]
    doubts.sort(key=lambda doubt: doubt.trust != "no")
    return Verdict(doubts[0].trust if doubts else "yes", [doubt.reason for doubt in doubts], evidence.numbers())


def _unfinished(evidence: Evidence) -> str:
    return f"the fit is not finished: {evidence.message or evidence.status}"


def _weights_count(evidence: Evidence) -> bool:
    """Whether weights are those of the posterior."""
    whole = not evidence.minibatches and not evidence.nonfinite and not evidence.points
    return whole and evidence.draws > 0


def _points(evidence: Evidence) -> _Doubt | None:
    count = len(evidence.points)
    if not count:
        return None
    if count == evidence.latent:
        return _Doubt("no", "the guide is one point, not a distribution")
    more = f" and {count - 1} more" if count > 1 else ""
    return _Doubt("caution", f"{evidence.points[0]}{more} have one value in the guide, and all else is given that")


def _not_finite(evidence: Evidence) -> _Doubt | None:
    if not evidence.nonfinite:
        return None
    return _Doubt("no", f"{evidence.nonfinite:,} of {evidence.draws:,} log weights are not finite")


def _no_draws(evidence: Evidence) -> _Doubt | None:
    return None if evidence.draws else _Doubt("caution", "there are no draws to judge it by")


def _minibatches(evidence: Evidence) -> _Doubt | None:
    if not evidence.minibatches:
        return None
    return _Doubt("caution", "weights are of minibatches and not of all the data, so k-hat says nothing")


def _one_start(evidence: Evidence) -> _Doubt | None:
    if evidence.finished > 1 or evidence.modes is not None:
        return None
    return _Doubt("caution", "one start only: another might have found more of the posterior")


def _alone(evidence: Evidence) -> _Doubt | None:
    if evidence.finished < 2 or evidence.agreeing > 1:
        return None
    return _Doubt("caution", f"the best of {evidence.finished} restarts stands alone: no other comes near its ELBO")


def _modes(evidence: Evidence) -> _Doubt | None:
    missed = _missed(evidence)
    if not missed or evidence.elbo is None:
        return None
    highest = max(missed)
    what = f"{len(missed)} of {len(evidence.modes or ())} modes found are not in the guide"
    compared = f"the largest has a log evidence of {highest:.1f} where the ELBO is {evidence.elbo:.1f}"
    return _Doubt("no" if highest > evidence.elbo else "caution", f"{what}: {compared}")


def _missed(evidence: Evidence) -> list[float]:
    """Log evidence of the modes that count and that the guide does not cover."""
    if not evidence.modes or evidence.elbo is None:
        return []
    best = max(log_q for _, log_q in evidence.modes)
    return [
        log_evidence
        for log_evidence, log_q in evidence.modes
        if log_evidence > evidence.elbo - MODE_NEAR and not log_q > best - MODE_EMPTY
    ]


def _k_hat(evidence: Evidence) -> _Doubt | None:
    k, limit, sd = evidence.k_hat, k_limit(evidence.draws), evidence.sd_log_weights
    if sd is not None and sd < SPREAD_NONE:
        return None
    if k is None:
        return _Doubt(
            "caution",
            f"no k-hat: {evidence.why_no_k_hat or 'too few draws, or weights without a tail'}",
        )
    if k >= K_NO_MEAN and not _nearly_alike(evidence):
        return _Doubt("no", f"k-hat {k:.2f} is 1 or more: draws miss so much that weighted means do not converge")
    if k >= limit and not (_nearly_alike(evidence) and _missing(evidence) < MISSING_LITTLE):
        why = "its plain means may be right, but nothing here can tell"
        return _Doubt("caution", f"k-hat {k:.2f} is above {limit:.2f}: the guide is too narrow somewhere ({why})")
    return None


def _nearly_alike(evidence: Evidence) -> bool:
    """Whether all draws weigh nearly the same, so that the plain means are nearly the weighted ones."""
    return evidence.ess is not None and evidence.ess >= ESS_ALIKE * evidence.draws


def _missing(evidence: Evidence) -> float:
    """The share of the posterior beyond the draws, as their tail goes on.

    Beyond the largest of S weights, 1/S of the guide is left. Weights above u have a mean of about u / (1 - k) there,
    if the tail is a generalized Pareto distribution of shape k: Pickands, "Statistical Inference Using Extreme Order
    Statistics", 1975.
    """
    k, largest = evidence.k_hat, evidence.largest
    return math.inf if k is None or largest is None or k >= 1 else largest / (1 - k)


def _few_draws(evidence: Evidence) -> _Doubt | None:
    if evidence.k_hat is None or evidence.draws >= ENOUGH_DRAWS:
        return None
    return _Doubt("caution", f"k-hat by {evidence.draws:,} draws only; it takes {ENOUGH_DRAWS:,}")


def _reliable(evidence: Evidence) -> bool:
    """Whether corrected means can be relied on, whatever they correct."""
    k, ess = evidence.k_hat, evidence.ess
    return k is not None and ess is not None and k < K_GOOD and ess >= ESS_GOOD


def _spread(evidence: Evidence) -> _Doubt | None:
    sd = evidence.sd_log_weights
    if sd is None or sd <= SPREAD_WIDE or _reliable(evidence):
        return None
    return _Doubt("no" if not sd <= SPREAD_ABSURD else "caution", f"log weights spread by {sd:.3g} nats")


def _few_effective(evidence: Evidence) -> _Doubt | None:
    if evidence.ess is None or evidence.ess >= ESS_LEAST:
        return None
    return _Doubt("caution", f"{evidence.draws:,} draws are worth {evidence.ess:.0f} of the posterior")


def _one_outweighs(evidence: Evidence) -> _Doubt | None:
    if evidence.largest is None or evidence.largest <= LARGEST_SHARE:
        return None
    trust = "no" if evidence.draws >= ENOUGH_DRAWS else "caution"
    return _Doubt(trust, f"one of {evidence.draws:,} draws has {evidence.largest:.0%} of the weight of all")


def _shift(evidence: Evidence) -> _Doubt | None:
    if evidence.shift is None or evidence.shift <= SHIFT_LARGE or _reliable(evidence):
        return None
    return _Doubt(
        "caution", f"weights move the mean of {evidence.shift_of} by {evidence.shift:.2g} standard deviations"
    )


def _error(evidence: Evidence) -> _Doubt | None:
    if evidence.error is None or evidence.error <= ERROR_LARGE:
        return None
    where = f"the mean of {evidence.error_of}"
    return _Doubt("caution", f"the Monte Carlo error of {where} is {evidence.error:.2g} standard deviations")


_ALWAYS = (_points, _not_finite, _no_draws, _minibatches, _modes, _alone, _one_start)
_OF_WEIGHTS = (_k_hat, _spread, _one_outweighs, _few_draws, _few_effective, _shift, _error)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _k_hat_in_words(numbers: dict[str, Any]) -> str:
    if numbers["k_hat"] is None or numbers["minibatches"] or numbers["points"]:
        return ""
    return f"k-hat {numbers['k_hat']:.2f} on {numbers['draws']:,} draws"


def _restarts_in_words(numbers: dict[str, Any]) -> str:
    if numbers["restarts"] < 2:
        return ""
    return f"{numbers['agreeing']} of {numbers['restarts']} restarts agree"
