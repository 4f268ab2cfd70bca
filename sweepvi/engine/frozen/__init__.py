"""Fits by minimizers: the noise is frozen, and the mean loss over many draws of it is minimised."""
