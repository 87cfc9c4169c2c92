"""How every component reaches the cluster: one Client interface over HTTP or in process; reflector, cache, work queue, leader election and event recorder on top."""
