"""The scheduler: which node a pod goes to, and the sentence that says why not.

In: pods, nodes, volumes, budgets and namespaces through the client. Out: bindings, the PodScheduled condition, events,
and deletions of victims of preemption.

Decisions are pure: `plan.plan_pod(pod, state)` looks at every node, with arrays over all nodes (`state.ClusterState`,
`table.NodeTable`), and returns a node or the reason of each node. `run.run_scheduler` is the thin shell around it: it
imports no numpy, so that the process is ready before numpy is loaded.
"""
