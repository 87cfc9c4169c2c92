"""Kubernetes' API as data: kinds, schemas, defaulting, validation, patches, selectors, quantities, typed views. Pure functions over plain JSON objects; no I/O."""
