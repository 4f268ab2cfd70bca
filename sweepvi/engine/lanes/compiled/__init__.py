"""Chunks of steps as machine code."""
