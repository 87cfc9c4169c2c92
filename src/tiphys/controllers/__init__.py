"""The control loops: each watches some resources and moves the cluster towards what their specs say.

In: the client (shared, watched mirrors of resources). Out: writes through the client, events, one sentence of reason
for each decision. `run.run_controllers` starts them all; each module holds one controller, whose `plan_` functions are
pure and whose `Controller` record ties them to a work queue.
"""
