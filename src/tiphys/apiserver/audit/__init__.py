"""The audit log: who asked for what, what was decided and what came of it, as a policy wants it told.

In: every request with its user and answer, from the pipeline. Out: events, one JSON line each, to a file that is
rotated (`log.py`, in a thread: the loop never waits for it). Without a policy none of this is loaded.
"""
