"""The version of ptq4vm, and the only place that says it."""

__version__ = "0.1.0"
