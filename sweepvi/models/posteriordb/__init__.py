"""Ten posteriors of posteriordb as Pyro models, one file each, and what reads their data.

Sites are named as Stan's parameters are, so that a fit's draws can be compared with posteriordb's.
"""
