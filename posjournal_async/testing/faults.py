"""A storage that fails at a call."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from posjournal_async.errors import StorageError
from posjournal_async.testing.wrapping import Call, WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.storage.protocols import Storage

__all__ = ["FaultyStorage"]

T = TypeVar("T")

_WRITES = frozenset({"write_at", "write_durably_at"})
_RELEASES = frozenset({"close", "release"})
_CHANGES = frozenset({"remove", "resize", "sync"})


class FaultyStorage(WrappedStorage):
    """A storage whose calls fail from the `fail_at`-th on: that one only, or all that follow as well.

    What releases something does release it, and then fails: no system keeps a handle whose close failed.

    Args:
        inner: The storage.
        fail_at: Number of the call that fails, from 1; 0 for none. It may be set at any time.
        once: Whether only that call fails.
        code: The error number, as in `errno`.
        keep: How many bytes of a failed write are in the blob all the same, from the first on, given their number;
            likewise how many blobs of a failed removal of many are gone. None unless said otherwise.
        takes_effect: Whether any other failed call has done its work all the same: the blob is made or removed, the
            length is set, what was called before the sync is durable.
        only: Which calls count.

    Attributes:
        count: Calls so far that count.
        failures: Those of them that failed.

    Example:
        Let each call of a service fail in turn, and see what the service makes of it:

        >>> import asyncio, errno, itertools
        >>> from posjournal_async import Config, Context, Journal, MemoryStorage, Storage, StorageError
        >>> from posjournal_async.testing import FaultyStorage
        >>> async def serve(storage: Storage) -> None:
        ...     async with await Journal.init(Context(storage), Config(partition="orders")) as journal:
        ...         await journal.append("paid")
        ...         await journal.sync()
        >>> async def main() -> None:
        ...     for number in itertools.count(1):
        ...         faulty = FaultyStorage(MemoryStorage(), number, code=errno.ENOSPC, keep=lambda length: length // 2)
        ...         try:
        ...             await serve(faulty)
        ...         except StorageError as error:
        ...             assert error.errno == errno.ENOSPC
        ...         if not faulty.failures:
        ...             break  # all calls have failed once
        ...     async with await Journal.init(Context(faulty.inner), Config(partition="orders")) as journal:
        ...         print(await journal.read(0))
        >>> asyncio.run(main())
        paid
    """

    def __init__(  # noqa: PLR0913 - what may fail, when and how
        self,
        inner: Storage,
        fail_at: int = 0,
        *,
        once: bool = True,
        code: int = errno.EIO,
        keep: Callable[[int], int] = lambda _: 0,
        takes_effect: bool = False,
        only: Callable[[Call], bool] = lambda _: True,
    ) -> None:
        super().__init__(inner)
        self.fail_at = fail_at
        self._once = once
        self._code = code
        self._keep = keep
        self._takes_effect = takes_effect
        self._only = only
        self.count = 0
        self.failures: list[Call] = []

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if not self._only(call):
            return await go_on()
        self.count += 1
        if not 0 < self.fail_at <= self.count or (self._once and self.count > self.fail_at):
            return await go_on()
        self.failures.append(call)
        if call.what in _RELEASES or (call.what in _CHANGES and self._takes_effect):
            await go_on()
        elif call.what == "open" and self._takes_effect and call.name is not None:
            blob, _ = await self.inner.open(call.partition, call.name)
            await blob.close()  # nobody gets the handle
        elif call.what in _WRITES and call.blob is not None:
            kept = call.data[: self._keep(len(call.data))]
            if kept:
                await call.blob.write_at(call.offset, kept)
        elif call.what == "remove_many":
            for name in call.names[: self._keep(len(call.names))]:
                await self.inner.remove(call.partition, name)
        raise StorageError(call.partition, call.name, self._code, call.what)
