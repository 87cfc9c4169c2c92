"""Runs nftables commands, in this process through libnftables or else with the `nft` binary.

Decides only how a command text reaches the kernel. Each `run` is one transaction: all of it happens or nothing.
Calls block and belong in a worker thread; one `Nft` is used by one thread at a time.

Spec: libnftables(3), nft(8).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
from functools import cache

from tiphys.base.errors import TiphysError

BINARY_TIMEOUT_S = 30.0
_OUTPUT_HANDLES = 1 << 3
"""Lists show each rule's handle, by which it can be deleted."""
_PATH = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"))


class NftFailed(TiphysError):
    """The kernel or the parser refused a transaction; nothing of it was done."""


@cache
def _library() -> ctypes.CDLL | None:
    for name in ("libnftables.so.1", ctypes.util.find_library("nftables") or ""):
        if not name:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        library.nft_ctx_free.argtypes = (ctypes.c_void_p,)
        library.nft_ctx_buffer_error.argtypes = (ctypes.c_void_p,)
        library.nft_ctx_buffer_output.argtypes = (ctypes.c_void_p,)
        library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.argtypes = (ctypes.c_void_p,)
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.argtypes = (ctypes.c_void_p,)
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        return library
    return None


class Nft:
    """A context of libnftables, made at the first use. `in_process` False runs the binary."""

    def __init__(self, *, in_process: bool = True) -> None:
        self._library = _library() if in_process else None
        self._context: int | None = None

    def run(self, commands: str) -> str:
        """Run commands as one transaction and return what they print. Raises NftFailed."""
        if self._library is None:
            return _run_binary(commands)
        library = self._library
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            library.nft_ctx_buffer_error(self._context)
            library.nft_ctx_buffer_output(self._context)
            library.nft_ctx_output_set_flags(self._context, _OUTPUT_HANDLES)
        result = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = library.nft_ctx_get_error_buffer(self._context) or b""
        if result:
            raise NftFailed(_explain(errors.decode(errors="replace")))
        return output.decode(errors="replace")

    def close(self) -> None:
        """Free the context. Idempotent."""
        if self._context is not None and self._library is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def remove_table(nft: Nft, table: str) -> None:
    """Remove a table of the ip family if it is there."""
    nft.run(f"table ip {table}\ndelete table ip {table}\n")


def _run_binary(commands: str) -> str:
    binary = shutil.which("nft", path=_PATH)
    if not binary:
        raise NftFailed("neither libnftables.so.1 nor the nft command is on this machine: install nftables")
    try:
        done = subprocess.run(
            [binary, "-a", "-f", "-"],
            input=commands,
            capture_output=True,
            text=True,
            timeout=BINARY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NftFailed(f"nft did not end within {BINARY_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise NftFailed(_explain(done.stderr))
    return done.stdout


def _explain(errors: str) -> str:
    first = " ".join(errors.split())[:400] or "no reason given"
    hint = ""
    if "Operation not permitted" in errors:
        hint = "; it needs root (CAP_NET_ADMIN)"
    elif "Operation not supported" in errors or "No such file or directory" in errors:
        hint = "; the kernel may lack an nf_tables module"
    return f"nftables refused a change: {first}{hint}"
