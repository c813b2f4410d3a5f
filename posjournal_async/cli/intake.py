"""Lines into a journal: each durable before it is reported, many of them by one fsync."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posjournal_async.cli.json_form import parse_json
from posjournal_async.errors import AppendError, CodecError, JournalFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from posjournal_async.journal import Journal

__all__ = ["BadLine", "Intake", "item_in_json_line"]


class BadLine(Exception):
    """A line is no item of the journal. Those before it are appended and durable.

    Attributes:
        number: Which line it is, from 1 on.
        reason: Why.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


def item_in_json_line(line: bytes) -> Any:
    """Return the item that a line of JSON is.

    Raises:
        ValueError: It is no JSON, or JSON that would be changed by taking it.
    """
    try:
        return parse_json(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, found byte 0x{line[error.start]:02x} in column {error.start + 1}") from None


@dataclass(slots=True)
class _Taken:
    number: int
    item: Any


class Intake:
    """Appends lines to a journal.

    Args:
        journal: The journal.
        item_of: Makes the item of a line; raises ValueError for one that is none.
        most: Items that one fsync makes durable at the most.
        skips_blank: Whether lines with nothing but white space are passed over.
        report: Called with each range of positions that has become durable.

    Attributes:
        first: Position that the first item gets.
        durable: Position after the last item that is durable.
    """

    def __init__(
        self,
        journal: Journal[Any],
        item_of: Callable[[bytes], Any],
        *,
        most: int,
        skips_blank: bool,
        report: Callable[[range], None],
    ) -> None:
        self.first = self.durable = journal.size()
        self._journal = journal
        self._item_of = item_of
        self._most = most
        self._skips_blank = skips_blank
        self._report = report
        self._number = 0

    async def take(self, batches: AsyncIterator[list[bytes]]) -> None:
        """Append all lines, those of each batch with as few fsyncs as may be. What was appended is durable at the end.

        Raises:
            BadLine: A line is no item.
            ValueError: A line is too long.
            StorageError, JournalFailed: The journal has failed; what was reported is durable.
        """
        try:
            async for lines in batches:
                for start in range(0, len(lines), self._most):
                    await self._take(lines[start : start + self._most])
        finally:
            # Also after an interruption: what was appended is made durable, and then told.
            with suppress(JournalFailed):  # the failure under way is the one to tell
                await self._settle()
            self.durable = self._journal.durable_size()

    async def _take(self, lines: list[bytes]) -> None:
        taken, bad = self._parsed(lines)
        if taken:
            try:
                await self._journal.append_many(entry.item for entry in taken)
            except (AppendError, CodecError):
                # Nothing was appended. One by one, to find the line, and to have those before it.
                bad = await self._append_each(taken)
        await self._settle()
        if bad is not None:
            raise bad

    def _parsed(self, lines: Iterable[bytes]) -> tuple[list[_Taken], BadLine | None]:
        taken: list[_Taken] = []
        for line in lines:
            self._number += 1
            if self._skips_blank and not line.strip():
                continue
            try:
                taken.append(_Taken(self._number, self._item_of(line)))
            except ValueError as error:
                return taken, BadLine(self._number, str(error))
        return taken, None

    async def _append_each(self, taken: Iterable[_Taken]) -> BadLine | None:
        for entry in taken:
            try:
                await self._journal.append(entry.item)
            except (AppendError, CodecError) as error:
                return BadLine(entry.number, str(error))
        return None

    async def _settle(self) -> None:
        """Make durable what was appended, and report it."""
        size = self._journal.size()
        if size == self.durable:
            return
        await self._journal.sync_data()
        before, self.durable = self.durable, size
        self._report(range(before, size))

    @property
    def lines(self) -> int:
        """How many lines were looked at."""
        return self._number
