"""API Priority and Fairness: which requests run now, which wait, and which are refused when too much is asked at once.

In: FlowSchemas and PriorityLevelConfigurations from the watch cache, and each request with its user. Out: seats. A
request holds its seats from here to its answer. All of it is one event loop, so what answers without waiting (a read
from the cache) holds seats for no time at all; seats are held by what waits: for the disk, webhooks, kubelets, other
servers, a large list between its slices. `gate.py` is what the pipeline calls.
"""
