"""DSPy's optimizers, unmodified, in a worker of their own."""
