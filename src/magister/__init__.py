"""Magister: an open, self-hosted implementation of the Magistral reasoning system."""

__version__ = "0.1.0"
