"""Which server answers for which group version, and how requests reach the ones that are not this server.

APIService objects come in (watch cache); out go local APIServices for all that this server serves itself (local.py), the
conditions of remote ones (availability.py), forwarded requests (forwarding.py), and the remote servers' discovery and
OpenAPI documents for this server's own (documents.py). `aggregator.py` holds it all together.

Spec: Kubernetes documentation, "Kubernetes API Aggregation Layer", "Configure the Aggregation Layer".
"""
