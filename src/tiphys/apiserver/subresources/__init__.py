"""Subresources that are more than a part of their object: one noun a file, put together in table.py."""
