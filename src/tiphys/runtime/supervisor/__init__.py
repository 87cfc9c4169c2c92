"""A tiny process that holds containers' streams and reaps their exits, so that they outlive the node agent.

Runs isolated (`main.py` says how) and imports nothing of ours but this package, and no asyncio: it stays small and rarely
changes. It is a child subreaper: an OCI runtime started with --detach leaves its container as our child.
stdout and stderr are FIFOs in the container's directory, held read-write on both sides, so that killing this process
closes nobody's pipe; a successor opens them again by name. Each exit is written to `<dir>/exit.json` before anyone is
told. A successor finds `<dir>/process.json` without `exit.json`, watches that process by pidfd, and tells code 137 with
`known: false` when the kernel cannot tell the code of a process that was not its child.

Bounds: a reader of an exec that is slow stops the process's output (the pipe fills); an attached reader more than
4 MiB behind is cut off; logs rotate at 10 MiB, five files.
"""
