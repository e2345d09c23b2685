"""The three ways a run ends early on purpose. The command line turns them into a message and an exit code."""

from __future__ import annotations

import errno
import shlex
import sys

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells expect


class UserError(Exception):
    """Something the person running this can fix. The message names file, line, value and the fix; no traceback is shown."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, after what could be saved was saved. The message says how to go on."""


class Waiting(Exception):
    """The run has ended its turn: people have something to do first. The message says how far they are, `how` how to do it.

    Not an error (exit code 0): called again, the run goes on if it can. A stage raises it; `execute` records it.
    """

    def __init__(self, message: str, how: str = ""):
        super().__init__(message)
        self.how = how


def install(*packages: str) -> str:
    """How to get them into the Python that runs: a bare `pip` is often another's."""
    return f"install with `{shlex.join([sys.executable, '-m', 'pip', 'install', *packages])}`"


def is_disk_full(error: BaseException) -> bool:
    """True for a full disk or an exceeded quota, also where a library wraps it in an error of its own (safetensors does)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text


def is_out_of_memory(error: BaseException) -> bool:
    """True where Python, numpy or torch was refused memory, on a CPU or a GPU. (Where the system ends the process instead, nothing can be said.)"""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
