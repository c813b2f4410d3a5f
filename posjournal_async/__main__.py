"""The door of the `posjournal` command: `posjournal` or `python -m posjournal_async`."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]

# What the extra `cli` brings.
_EXTRA = {"click", "rich"}


def main() -> None:
    """Carry out the command that the arguments name, and end the process with its exit code.

    Without the extra `cli` a sentence on standard error names it, and the exit code is 2.
    """
    try:
        app = import_module("posjournal_async.cli.app")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("posjournal needs the extra \"cli\": pip install 'posjournal_async[cli]'\n")
        sys.exit(2)
    app.posjournal(prog_name="posjournal")


if __name__ == "__main__":
    main()
