"""Lanes: many fits of one program at once."""
