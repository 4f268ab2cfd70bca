"""What ``lanes.py`` measures: sweepvi, Pyro and NumPyro on the same problems, each in a process of its own."""
