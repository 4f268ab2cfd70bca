"""Reports: saved results → figures; computes nothing new."""

from sweepvi.report.loss_figure import draw_losses

__all__ = ["draw_losses"]
