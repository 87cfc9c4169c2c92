"""The store: keys, byte values and one sequence of revisions, durable before it answers.

In: commits with expected revisions. Out: entries now or at an older revision, and every change in order. It decides
nothing about objects. `interface.py` is the seam; `sqlite.py` and `memory.py` implement it over the same rules
(`ledger.py`, `paging.py`, `feed.py`).
"""
