"""Better versions of programs, found by DSPy's optimizers as durable jobs."""
