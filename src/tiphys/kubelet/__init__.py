"""The node agent: pods from the API server become containers of the runtime, and their state becomes status.

In: pods bound to this node (watched), the runtime's events, timers. Out: calls of the Runtime seam, status patches,
events, the Node object and its Lease. Decisions are pure (plan.py, status.py, probing.py, admission.py, node.py); the
effects are in worker.py and its neighbours. `run.run_kubelet` starts it all.
"""
