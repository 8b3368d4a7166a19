"""Metrics: how good an answer is. Pure, and the same wherever they are used: nodes and workers import them."""
