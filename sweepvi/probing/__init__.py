"""The probe: mean, noise and cost of gradients, estimator by estimator, at given parameters; ``sweepvi.probe``."""
