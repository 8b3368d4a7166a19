"""Pools of worker processes with real DSPy, seen from the node."""
