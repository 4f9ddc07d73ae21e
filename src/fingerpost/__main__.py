"""The installed command, and `python -m fingerpost`: the command line, which Ctrl-C ends quietly from the first moment."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of the signal."""


def main() -> None:
    """Run the command line and exit."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, _interrupted)
    from fingerpost.cli import main as run

    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on there is nothing to interrupt


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    """While modules are loaded, an exception would come out of one of them with its traceback."""
    sys.stderr.write("fingerpost: interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
