"""What ``lanes.py`` measures: sweepvi, Pyro and NumPyro, each in a process of its own, on the same problems."""
