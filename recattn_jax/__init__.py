"""Hybrids of recurrence and attention as expressions, in JAX."""

__version__ = "0.1.0"
