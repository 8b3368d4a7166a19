"""A language model for demos, tests and load: deterministic, scriptable, teachable."""
