"""Sets of examples: immutable versions under a name."""
