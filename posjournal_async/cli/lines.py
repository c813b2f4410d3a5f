"""Lines of a stream as they come: what is at hand at once, and never more than a bounded part of it in memory."""

from __future__ import annotations

import asyncio
import io
import os
import select
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from errno import EBADF
from itertools import takewhile
from typing import TYPE_CHECKING, BinaryIO

from posjournal_async.waiting import retrieve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["LineTooLong", "lines_at_hand", "standard_input"]

# Bytes that are taken together, and so the most that waits in memory beside one unfinished line.
_PIECE = 1024 * 1024


class LineTooLong(ValueError):
    """A line does not end where the longest allowed one would.

    Attributes:
        limit: Length of the longest line allowed, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"expected at most {self.limit:,} bytes, found more"


def standard_input() -> BinaryIO:
    """Return the bytes of standard input.

    Raises:
        OSError: It is closed.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise OSError(EBADF, "standard input is closed")
    return sys.stdin.buffer


@asynccontextmanager
async def lines_at_hand(stream: BinaryIO, *, longest: int) -> AsyncGenerator[AsyncGenerator[list[bytes], None]]:
    """Give the lines of a stream in lists, each of what was at hand, without the line feed; the last may lack it.

    The next piece is read by a thread while the caller works on the one before. Leaving the block ends the thread, also
    where it waits for a line that nobody writes.

    Args:
        stream: What is read to its end.
        longest: Length of a line, in bytes, above which the iteration raises.

    Raises:
        LineTooLong: In the iteration, after the lines before it.
        OSError: In the iteration: the stream cannot be read.
    """
    woken, wake = os.pipe()
    executor = ThreadPoolExecutor(1, thread_name_prefix="posjournal-lines")
    try:
        async with aclosing(_lines(executor, _reader_of(stream, woken), longest)) as lines:
            yield lines
    finally:
        os.close(wake)  # the thread sees the end of this pipe, and returns
        executor.shutdown()
        os.close(woken)


def _reader_of(stream: BinaryIO, woken: int) -> Callable[[], bytes]:
    """Return what reads the next piece: b"" at the end, or when `woken` can be read."""
    try:
        fd = stream.fileno()
    except io.UnsupportedOperation:  # a stream in memory, which never waits
        return lambda: stream.read(_PIECE)

    def read() -> bytes:
        parts: list[bytes] = []
        length = 0
        while length < _PIECE:
            ready, _, _ = select.select([fd, woken], [], [], 0 if parts else None)
            if fd not in ready or woken in ready:
                break
            part = os.read(fd, _PIECE - length)
            if not part:
                break  # the next call finds the end again
            parts.append(part)
            length += len(part)
        return b"".join(parts)

    return read


async def _lines(executor: ThreadPoolExecutor, read: Callable[[], bytes], longest: int) -> AsyncGenerator[list[bytes]]:
    loop = asyncio.get_running_loop()

    def start() -> asyncio.Future[bytes]:
        reading = loop.run_in_executor(executor, read)
        reading.add_done_callback(retrieve)  # nobody may be left to take it
        return reading

    reading = start()
    unfinished: list[bytes] = []
    while piece := await reading:
        reading = start()
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join([*unfinished, ended[0]])
            unfinished = []
        unfinished.append(rest)
        good = list(takewhile(lambda line: len(line) <= longest, ended))
        if good:
            yield good
        if len(good) < len(ended) or sum(map(len, unfinished)) > longest:
            raise LineTooLong(longest)
    if any(unfinished):
        yield [b"".join(unfinished)]
