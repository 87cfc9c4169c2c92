"""Pod addresses, Services and DNS on one node."""
