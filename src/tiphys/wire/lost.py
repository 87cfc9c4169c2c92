"""The transport of a connection that is gone: whoever still holds the connection may write to it, and nothing happens.

Connections take it in place of their own, whose buffers are then free at once. Invariant: it keeps nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any


class LostTransport(asyncio.Transport):
    """See the module's docstring."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def write(self, data: Any) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


LOST = LostTransport()
