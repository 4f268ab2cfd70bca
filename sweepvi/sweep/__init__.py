"""Sweeps: a space of configurations, searched by trials that run as lanes in worker processes."""
