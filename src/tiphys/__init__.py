"""Tiphys: Kubernetes in Python. The map of the packages is ARCHITECTURE.md."""

__version__ = "0.1.0"
