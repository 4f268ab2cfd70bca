"""Variational inference of other libraries, over NumPyro models of the same ten posteriors.

It runs in an environment of its own (``requirements-peers.txt``), which has neither torch nor sweepvi.
"""
