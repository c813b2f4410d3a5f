"""Every error the library raises on purpose, under one root.

An error carries its facts as attributes, builds its message from them, pickles, and never holds an item's bytes.
"""

from __future__ import annotations

import os
from errno import EAGAIN

__all__ = [
    "AppendError",
    "CodecError",
    "Corruption",
    "EmptyAppend",
    "InvalidConfiguration",
    "InvalidRewind",
    "ItemOutOfRange",
    "ItemPruned",
    "ItemTooLarge",
    "JournalClosed",
    "JournalError",
    "JournalFailed",
    "JournalLocked",
    "PositionError",
    "SizeOverflow",
    "StorageError",
]


class JournalError(Exception):
    """The root of all errors of a journal.

    Example:
        >>> import asyncio
        >>> from posjournal_async import Config, Context, Journal, JournalError, MemoryStorage
        >>> async def main() -> None:
        ...     async with await Journal.init(Context(MemoryStorage()), Config(partition="orders")) as journal:
        ...         try:
        ...             await journal.read(7)
        ...         except JournalError as error:
        ...             print(type(error).__name__, error.position, error.size)
        >>> asyncio.run(main())
        ItemOutOfRange 7 0
    """


class PositionError(JournalError, IndexError):
    """The caller asked for a place that is not there.

    Attributes:
        position: The position, or the size in items, that was asked for.
    """

    def __init__(self, position: int, *facts: object) -> None:
        super().__init__(position, *facts)
        self.position = position


class ItemOutOfRange(PositionError):
    """The position has not been appended, or was rewound.

    Attributes:
        size: The size of the journal, in items.
    """

    def __init__(self, position: int, size: int) -> None:
        super().__init__(position, size)
        self.size = size

    def __str__(self) -> str:
        return f"position: expected one below the size {self.size}, found {self.position}"


class ItemPruned(PositionError):
    """The position was pruned, or lies before the position at which the journal started.

    Attributes:
        oldest: The pruning boundary: the first position that is not pruned.
    """

    def __init__(self, position: int, oldest: int) -> None:
        super().__init__(position, oldest)
        self.oldest = oldest

    def __str__(self) -> str:
        return f"position: expected one from the pruning boundary {self.oldest} on, found {self.position}"


class InvalidRewind(PositionError):
    """The size to rewind to is larger than the journal.

    Attributes:
        size: The size of the journal, in items.
    """

    def __init__(self, position: int, size: int) -> None:
        super().__init__(position, size)
        self.size = size

    def __str__(self) -> str:
        return f"rewind: expected a size of at most {self.size} items, found {self.position}"


class AppendError(JournalError):
    """Nothing was appended, and the journal is as it was."""


class EmptyAppend(AppendError):
    """`append_many` was given no item, so there is no last position to return."""

    def __str__(self) -> str:
        return "append_many: expected at least one item, found none"


class ItemTooLarge(AppendError):
    """The encoded item is longer than `Config.max_item_size`.

    Attributes:
        length: Length of the encoded item, in bytes.
        limit: `Config.max_item_size`, in bytes.
    """

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(length, limit)
        self.length = length
        self.limit = limit

    def __str__(self) -> str:
        return f"encoded item: expected at most {self.limit} bytes, found {self.length} bytes"


class SizeOverflow(AppendError):
    """The journal's size would be larger than 2**64 - 1 items, or it would start with that many and take none.

    Attributes:
        size: The size that was asked for, in items.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def __str__(self) -> str:
        return f"size: expected at most 2**64 - 1 items, and a start below that, found {self.size}"


class CodecError(JournalError):
    """An item could not be encoded, and was not appended; or could not be decoded or decompressed, and stays as it is.

    Attributes:
        codec: Name of the codec, or "zstd".
        doing: "encode", "decode" or "decompress".
        reason: The class name of the exception that the codec raised, or what is wrong with what it was given or gave.
            The text of the exception may quote the item; it is in the `__cause__` only.
        position: The item's position when it was read, else None.
    """

    def __init__(self, codec: str, doing: str, reason: str, position: int | None = None) -> None:
        super().__init__(codec, doing, reason, position)
        self.codec = codec
        self.doing = doing
        self.reason = reason
        self.position = position

    def __str__(self) -> str:
        place = "" if self.position is None else f" (position {self.position})"
        return f"{self.doing} with {self.codec}: {self.reason}{place}"


class Corruption(JournalError):
    """What is stored is not what was written, and no crash explains it. Nothing was changed.

    From opening, the journal cannot be opened, and the next try says the same. From reading, other positions can be
    read, and appending goes on.

    Attributes:
        what: What was looked at.
        expected: What should have been there.
        found: What was there instead.
        partition: Partition of the storage.
        section: Section number, or None.
        offset: Byte offset in the blob, or None.
        position: Position of the item, or None.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - an error carries its facts, in the order in which it pickles
        self,
        what: str,
        expected: object,
        found: object,
        partition: str,
        section: int | None = None,
        offset: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(what, expected, found, partition, section, offset, position)
        self.what = what
        self.expected = expected
        self.found = found
        self.partition = partition
        self.section = section
        self.offset = offset
        self.position = position

    def __str__(self) -> str:
        places = (("section", self.section), ("offset", self.offset), ("position", self.position))
        named = [f"partition {self.partition}", *(f"{name} {at}" for name, at in places if at is not None)]
        return f"{self.what}: expected {self.expected}, found {self.found} ({', '.join(named)})"


class InvalidConfiguration(JournalError):
    """The configuration contradicts what is stored, or itself. Nothing was changed.

    Raised when a `Config` is made, and when a journal is opened with another `items_per_section`, codec or format
    version than it has on disk.

    Attributes:
        what: The field or thing in question.
        expected: What it had to be.
        found: What it was.
        partition: Base name of the journal where it is known, else None.
    """

    def __init__(self, what: str, expected: object, found: object, partition: str | None = None) -> None:
        super().__init__(what, expected, found, partition)
        self.what = what
        self.expected = expected
        self.found = found
        self.partition = partition

    def __str__(self) -> str:
        place = "" if self.partition is None else f" (partition {self.partition})"
        return f"{self.what}: expected {self.expected}, found {self.found}{place}"


class JournalLocked(JournalError, OSError):
    """Somebody has the journal open: another journal of this process, or another process.

    The lock of a process that died is gone with it, so whoever holds it is alive.

    Attributes:
        partition: The partition that is locked.
        holder: Process id of the holder where the system tells it, else None.
    """

    def __init__(self, partition: str, holder: int | None = None) -> None:
        OSError.__init__(self, EAGAIN, os.strerror(EAGAIN))  # what flock(2) says
        self.partition = partition
        self.holder = holder

    def __reduce__(self) -> tuple[type[JournalLocked], tuple[str, int | None], dict[str, object]]:
        return type(self), (self.partition, self.holder), self.__dict__  # its notes are there

    def __str__(self) -> str:
        holder = "" if self.holder is None else f" by process {self.holder}"
        return f"lock: expected it to be free, found it held{holder} (partition {self.partition})"


class JournalClosed(JournalError):
    """The journal was closed or destroyed.

    Attributes:
        partition: Base name of the journal.
    """

    def __init__(self, partition: str) -> None:
        super().__init__(partition)
        self.partition = partition

    def __str__(self) -> str:
        return f"journal: expected it to be open, found it closed (partition {self.partition})"


class JournalFailed(JournalError):
    """An earlier operation failed, and the journal refuses to guess: close it and open it again to recover.

    Raised by whatever would change the journal. Positions below the durable size can be read.

    Attributes:
        partition: Base name of the journal.
        cause: The first failure.
    """

    def __init__(self, partition: str, cause: BaseException) -> None:
        super().__init__(partition, cause)
        self.partition = partition
        self.cause = cause
        self.__cause__ = cause

    def __str__(self) -> str:
        reason = str(self.cause) or type(self.cause).__name__
        return f"journal: expected it to be sound, found it failed by: {reason} (partition {self.partition})"


class StorageError(JournalError, OSError):
    """The storage could not do what it was asked for: the form in which errors of the system come.

    When a change failed, the journal has failed with it; a read that failed may be tried again.

    Attributes:
        partition: Partition of the storage.
        blob: Name of the blob, or None when it was about the partition.
        errno: The system's error number, or None.
        doing: What was tried.
    """

    def __init__(self, partition: str, blob: bytes | None, errno: int | None, doing: str) -> None:
        OSError.__init__(self, errno, None if errno is None else os.strerror(errno))
        self.partition = partition
        self.blob = blob
        self.doing = doing

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, bytes | None, int | None, str], dict[str, object]]:
        return type(self), (self.partition, self.blob, self.errno, self.doing), self.__dict__  # its notes are there

    def __str__(self) -> str:
        reason = "it failed" if self.errno is None else os.strerror(self.errno).lower()
        place = f"partition {self.partition}" + ("" if self.blob is None else f", blob {self.blob.hex()}")
        return f"{self.doing}: expected success, found {reason} ({place})"
