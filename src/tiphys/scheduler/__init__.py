"""Which node a pod runs on: queue, filters and scores over all nodes at once, binding."""
