"""Items to payloads and back: the codec, compression, and the limits on both."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from posjournal_async.errors import CodecError, ItemTooLarge

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posjournal_async.config import Config
    from posjournal_async.format.record import Records

__all__ = ["Payload", "Payloads"]

T = TypeVar("T")

# The bytes of a record's payload, and whether they are compressed.
Payload = tuple[bytes, bool]

# A frame may ask for a window as large as the largest item; zstd itself never needs less than 1 KiB.
_SMALLEST_WINDOW_LOG = 10
_LARGEST_WINDOW_LOG = 31


class Payloads(Generic[T]):
    """Encodes and decodes the items of one journal, as its configuration says."""

    def __init__(self, config: Config[T]) -> None:
        self._codec = config.codec
        self._decode = config.codec.decode
        self._limit = config.max_item_size
        self._compression = config.compression
        window_log = min(max(self._limit.bit_length(), _SMALLEST_WINDOW_LOG), _LARGEST_WINDOW_LOG)
        self._options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}

    def encode(self, item: T) -> Payload:
        """Return the payload of an item.

        Raises:
            CodecError: The codec refused the item.
            ItemTooLarge: It is longer than the limit, before compression.
        """
        try:
            payload = self._codec.encode(item)
        except Exception as error:
            raise CodecError(self._codec.name, "encode", _reason_of(error)) from error
        if not isinstance(payload, bytes):
            raise CodecError(self._codec.name, "encode", f"expected bytes, found {type(payload).__name__}")
        if len(payload) > self._limit:
            raise ItemTooLarge(len(payload), self._limit)
        if self._compression is not None:
            smaller = zstd.compress(payload, self._compression)
            if len(smaller) < len(payload):
                return smaller, True
        return payload, False

    def decode(self, payload: Payload, position: int) -> T:
        """Return the item of a payload.

        Raises:
            CodecError: It is no zstd frame, decompresses to more than the limit, or the codec refused it.
        """
        data, is_compressed = payload
        if is_compressed:
            data = self._decompress(data, position)
        try:
            return self._decode(data)
        except Exception as error:
            raise CodecError(self._codec.name, "decode", _reason_of(error), position) from error

    def decode_all(self, records: Records, first: int) -> Iterator[T]:
        """Yield the items of records one by one; the first has position `first`. Raises as `decode`."""
        if records.compressed:
            compressed = set(records.compressed)
            for index, data in enumerate(records.payloads):
                yield self.decode((data, index in compressed), first + index)
            return
        # The same for the usual case, without a call in between for each item.
        decode = self._decode
        position = first
        try:
            for data in records.payloads:
                yield decode(data)
                position += 1
        except Exception as error:
            raise CodecError(self._codec.name, "decode", _reason_of(error), position) from error

    def _decompress(self, frame: bytes, position: int) -> bytes:
        """Return what one zstd frame holds. What the frame claims of its size is not believed and not allocated."""
        decompressor = zstd.ZstdDecompressor(options=self._options)
        try:
            data = decompressor.decompress(frame, max_length=self._limit + 1)
        except zstd.ZstdError as error:
            raise CodecError("zstd", "decompress", _reason_of(error), position) from error
        if len(data) > self._limit:
            raise CodecError("zstd", "decompress", f"expected at most {self._limit} bytes, found more", position)
        if not decompressor.eof or decompressor.unused_data:
            raise CodecError("zstd", "decompress", "expected one whole frame, found another length", position)
        return data


def _reason_of(error: Exception) -> str:
    """Say what went wrong, without what the codec may have quoted of the item."""
    return type(error).__name__
