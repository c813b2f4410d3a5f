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


class FaultyStorage(WrappedStorage):
    """A storage whose calls fail from the `fail_at`-th on: that one only, or all that follow as well.

    What releases something does release it, and then fails: no system keeps a handle whose close failed.

    Args:
        inner: The storage.
        fail_at: Number of the call that fails, from 1; 0 for none.
        once: Whether only that call fails.
        code: The error number.
        keep: Part of the bytes that a failed write leaves in the blob, from 0.0 to 1.0.
        only: Which calls count.

    Attributes:
        count: Calls so far.
    """

    def __init__(  # noqa: PLR0913 - what may fail, when and how
        self,
        inner: Storage,
        fail_at: int = 0,
        *,
        once: bool = True,
        code: int = errno.EIO,
        keep: float = 0.0,
        only: Callable[[Call], bool] = lambda _: True,
    ) -> None:
        super().__init__(inner)
        self.fail_at = fail_at
        self._once = once
        self._code = code
        self._keep = keep
        self._only = only
        self.count = 0

    @property
    def has_failed(self) -> bool:
        """Whether a call has failed."""
        return 0 < self.fail_at <= self.count

    @override
    async def around(self, call: Call, go_on: Callable[[], Awaitable[T]]) -> T:
        if not self._only(call):
            return await go_on()
        self.count += 1
        if not self.has_failed or (self._once and self.count > self.fail_at):
            return await go_on()
        if call.what in {"close", "release"}:
            await go_on()
        if call.data and call.blob is not None and self._keep:
            await call.blob.write_at(call.offset, call.data[: int(len(call.data) * self._keep)])
        raise StorageError(call.partition, call.name, self._code, call.what)
