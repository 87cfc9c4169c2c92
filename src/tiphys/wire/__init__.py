"""Bytes on connections: HTTP/1.1 server core, WebSocket, SPDY/3.1, TLS material, and the client side of the same. Knows nothing of Kubernetes' kinds."""
