"""The one logger of the library, and what may be said in it: never a byte of an item.

Silent until a service configures `logging`. There is one line for an open that repaired something (WARNING), one for a
journal that failed (ERROR), and one for a metrics sink that was switched off (WARNING).
"""

from __future__ import annotations

import logging

from posjournal_async.errors import JournalError, JournalFailed

__all__ = ["logger", "reason_of"]

logger = logging.getLogger("posjournal_async")
logger.addHandler(logging.NullHandler())


def reason_of(error: BaseException) -> str:
    """Say what went wrong, without what an error of somebody else may quote: only ours are known to hold no item."""
    if isinstance(error, JournalFailed):
        return reason_of(error.cause)
    return str(error) if isinstance(error, JournalError) else type(error).__name__
