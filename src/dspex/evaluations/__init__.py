"""Evaluations: a program's version run over a dataset, with a score for each example."""
