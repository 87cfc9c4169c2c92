"""Frozen, typed views of the fields that components read. Decoded once with msgspec from the JSON bytes; unknown fields are ignored, and nothing is ever written back from a view."""
