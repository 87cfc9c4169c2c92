"""The Common Expression Language, as Kubernetes speaks it: what an expression means, what is wrong with it, what it costs.

In: the text of an expression, the types of its variables, and libraries of functions. Out: a program that is compiled
once and evaluated for every write, or the errors of the text with their places. Nothing here knows Kubernetes.
Start at `environment.py`.
"""
