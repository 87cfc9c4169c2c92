"""Containers: an async interface that mirrors CRI v1, an embedded runtime (OCI binary and our image store), a simulated one."""
