"""The door of the `posjournal` command: `posjournal` or `python -m posjournal_async`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

__all__ = ["main"]

# What the extra `cli` brings.
_EXTRA = {"click", "rich"}

# 128 + SIGINT, as shells have it: nothing that could be imported says so yet.
_INTERRUPTED = 130


def main() -> None:
    """Carry out the command that the arguments name, and end the process with its exit code.

    Without the extra `cli` a sentence on standard error names it, and the exit code is 2.
    """
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        # It is closed, as `2>&-` has it: whoever does that wants no messages.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process
    try:
        app = import_module("posjournal_async.cli.app")
    except KeyboardInterrupt:
        sys.stderr.write("posjournal: interrupted\n")
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("posjournal needs the extra \"cli\": pip install 'posjournal_async[cli]'\n")
        sys.exit(2)
    app.posjournal(prog_name="posjournal")


if __name__ == "__main__":
    main()
