"""How the node agent and its supervisor speak, both ways: frames of 1 byte type, 4 bytes length (big endian), payload.

On one Unix stream socket. JSON (0): requests with `op` and `n`, answers with `re`, events with `ev`. STDOUT (1), STDERR
(2), STDIN (3), STDIN_END (4): a stream connection's data. A connection that sent `exec` or `attach` is that process's
stream; when it closes, an exec's process is killed and an attached container goes on.
"""

from __future__ import annotations

import struct

JSON, STDOUT, STDERR, STDIN, STDIN_END = range(5)
HEADER = struct.Struct("!BI")
FRAME_LIMIT_BYTES = 4 << 20
