"""DSPex runs DSPy programs in production: compiled by DSPy, served without it."""

__version__ = "0.1.0"
