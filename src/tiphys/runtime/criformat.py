"""Lines of a container's log as CRI wants them, for simulated containers; supervisor/logfile.py writes those of real ones.

Spec: CRI log format: "<RFC3339Nano> <stdout|stderr> <F|P> <text>".
"""

from __future__ import annotations

import time


def format_nano_time(unix_s: float) -> str:
    """Return RFC 3339 text in UTC with nine digits of the second."""
    nanos = round(unix_s * 1e9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(nanos // 1_000_000_000))}.{nanos % 1_000_000_000:09d}Z"


def format_log_lines(unix_s: float, stream: str, data: bytes) -> bytes:
    """Return one full log line for each line in `data`."""
    prefix = f"{format_nano_time(unix_s)} {stream} F ".encode()
    return b"".join(prefix + line + b"\n" for line in data.splitlines())
