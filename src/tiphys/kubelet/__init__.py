"""The node agent: pods from the API server become containers of the runtime, and their state becomes status."""
