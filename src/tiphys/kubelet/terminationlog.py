"""What a container said before it ended: its termination file, or the end of its log.

Spec: Kubernetes docs, "Determine the Reason for Pod Failure" (4096 bytes of the file; 80 lines or 2048 bytes of log).
"""

from __future__ import annotations

import os

from tiphys.kubelet.logs import read_last_text
from tiphys.runtime.interface import Container

MAX_FILE = 4096
MAX_LOG = 2048
MAX_LOG_LINES = 80


def read_termination_message(path: str, policy: str, container: Container) -> str:
    """Return the message, "" when there is none. Unreadable files count as empty."""
    text = _tail(path)
    if not text and policy == "FallbackToLogsOnError" and container.exit_code != 0:
        text = read_last_text(container.log_path, MAX_LOG_LINES, MAX_LOG)
    return text


def _tail(path: str) -> str:
    if not path:
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        source.seek(max(0, size - MAX_FILE))
        return source.read(MAX_FILE).decode(errors="replace")
