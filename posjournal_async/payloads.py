"""Items to payloads and back: the codec, compression, and the limits on both."""

from __future__ import annotations

import sys
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from posjournal_async.codecs import BytesCodec
from posjournal_async.codecs.versions import UnreadableVersion
from posjournal_async.errors import CodecError, ItemTooLarge
from posjournal_async.format.record import RECORD_HEAD_LENGTH

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from posjournal_async.config import Config
    from posjournal_async.format.record import Records

__all__ = ["Payload", "Payloads", "Run", "joined"]

T = TypeVar("T")

# The bytes of a record's payload, and whether they are compressed.
Payload = tuple[bytes, bool]

# A frame may ask for a window as large as the largest item; zstd itself never needs less than 1 KiB.
_SMALLEST_WINDOW_LOG = 10
_LARGEST_WINDOW_LOG = 31


@dataclass(frozen=True, slots=True)
class Run:
    """Payloads that get consecutive positions.

    Attributes:
        payloads: The payloads.
        compressed: Indices in `payloads` of those that are compressed, ascending.
        lengths: Bytes of the record of each.
        length: Bytes of all records.
    """

    payloads: list[bytes]
    compressed: Sequence[int]
    lengths: list[int]
    length: int

    def __len__(self) -> int:
        return len(self.payloads)

    def part(self, start: int, stop: int) -> Run:
        """Return those from index `start` up to index `stop`, which is not included."""
        lengths = self.lengths[start:stop]
        first, last = bisect_left(self.compressed, start), bisect_left(self.compressed, stop)
        compressed = [index - start for index in self.compressed[first:last]]
        return Run(self.payloads[start:stop], compressed, lengths, sum(lengths))

    def parts(self, items: int, length: int) -> Iterator[Run]:
        """Yield all of it in runs of at most so many items, and so many bytes unless one item alone is longer."""
        start = 0
        while start < len(self):
            ends = accumulate(islice(self.lengths, start, start + items))
            stop = start + max(sum(1 for _ in takewhile(length.__ge__, ends)), 1)
            yield self.part(start, stop)
            start = stop


def joined(runs: Sequence[Run]) -> Run:
    """Return one or more runs as one."""
    if len(runs) == 1:
        return runs[0]
    payloads: list[bytes] = []
    compressed: list[int] = []
    lengths: list[int] = []
    for run in runs:
        compressed += [len(payloads) + index for index in run.compressed]
        payloads += run.payloads
        lengths += run.lengths
    return Run(payloads, compressed, lengths, sum(run.length for run in runs))


class Payloads(Generic[T]):
    """Encodes and decodes the items of one journal, as its configuration says."""

    def __init__(self, config: Config[T]) -> None:
        self._codec = config.codec
        self._encode = config.codec.encode
        self._decode = config.codec.decode
        self._limit = config.max_item_size
        self._compression = config.compression
        # Whether what is bytes already is its own payload, so that nobody need be called for it.
        codec: object = config.codec
        self.takes_bytes = type(codec) is BytesCodec
        # Longest payload that is stored as the codec made it, without a further look.
        self.plain = self._limit if config.compression is None else -1
        window_log = min(max(self._limit.bit_length(), _SMALLEST_WINDOW_LOG), _LARGEST_WINDOW_LOG)
        self._options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}

    def encode(self, items: list[T]) -> Run:
        """Return the payloads of one or more items.

        Raises:
            CodecError: The codec refused an item, or it could not be compressed.
            ItemTooLarge: One is longer than the limit, before compression.
        """
        if self.takes_bytes and _are_bytes(items):
            return self._run_of(items)
        try:
            payloads = list(map(self._encode, items))
        except Exception as error:
            raise self.refusal(error) from error
        if len(payloads) < len(items):  # a StopIteration of the codec is the end of the items for `map`
            raise self.refusal(StopIteration())
        return self.checked(payloads)

    def encoded(self, item: T) -> Any:
        """Return what the codec makes of an item, for `checked`. Raises as `encode`."""
        try:
            return self._encode(item)
        except Exception as error:
            raise self.refusal(error) from error

    def checked(self, payloads: list[Any]) -> Run:
        """Return what the codec made of items as a run of payloads. Raises as `encode`."""
        if not _are_bytes(payloads):
            payloads = [self._bytes_of(payload) for payload in payloads]
        return self._run_of(payloads)

    def _run_of(self, payloads: list[Any]) -> Run:
        lengths = [len(payload) + RECORD_HEAD_LENGTH for payload in payloads]
        length = sum(lengths)
        if length > self._limit:  # else none of them is
            for payload in payloads:
                if len(payload) > self._limit:
                    raise ItemTooLarge(len(payload), self._limit)
        if self._compression is None:
            return Run(payloads, (), lengths, length)
        compressed: list[int] = []
        for index, payload in enumerate(payloads):
            try:
                smaller = zstd.compress(payload, self._compression)
            except zstd.ZstdError as error:  # there is no memory for it, of which a high level takes much
                raise CodecError("zstd", "encode", _reason_of(error)) from error
            if len(smaller) < len(payload):
                payloads[index] = smaller
                lengths[index] = len(smaller) + RECORD_HEAD_LENGTH
                compressed.append(index)
        return Run(payloads, compressed, lengths, sum(lengths))

    def refusal(self, error: Exception) -> CodecError:
        """Return the error for an item that the codec refused to encode."""
        return CodecError(self._codec.name, "encode", _reason_of(error))

    def _bytes_of(self, payload: object) -> bytes:
        if not isinstance(payload, bytes):
            raise CodecError(self._codec.name, "encode", f"expected bytes, found {type(payload).__name__}")
        return bytes(memoryview(payload))  # not what a subclass says that its bytes are

    def decode(self, payload: Payload, position: int) -> T:
        """Return the item of a payload.

        Raises:
            CodecError: It is no zstd frame, decompresses to more than the limit, or the codec refused it.
        """
        data, is_compressed = payload
        if is_compressed:
            data = self._decompress(data, position)
        if self.takes_bytes:
            item: Any = data
            return item  # type: ignore[no-any-return] # the items of such a journal are bytes
        try:
            return self._decode(data)
        except Exception as error:
            raise CodecError(self._codec.name, "decode", _reason_of(error), position) from error

    def decode_all(self, records: Records, first: int) -> tuple[list[T], CodecError | None]:
        """Return the items of records, the first of which has position `first`, and why they end before the last.

        The error is what `decode` raises.
        """
        items: list[T] = []
        if not records.compressed:
            # The usual cases in one go, without a call in between for each item.
            if self.takes_bytes:
                payloads: list[Any] = records.payloads
                return payloads, None
            with suppress(Exception):
                items += map(self._decode, records.payloads)
                if len(items) == len(records.payloads):  # else the codec raised a StopIteration, which ends a `map`
                    return items, None
            items.clear()  # what came before the one that was refused is decoded again below, with its position
        compressed = set(records.compressed)
        for index, data in enumerate(records.payloads):
            try:
                items.append(self.decode((data, index in compressed), first + index))
            except CodecError as error:
                return items, error
        return items, None

    def _decompress(self, frame: bytes, position: int) -> bytes:
        """Return what one zstd frame holds. What the frame claims of its size is not believed and not allocated."""
        try:
            decompressor = zstd.ZstdDecompressor(options=self._options)
            data = decompressor.decompress(frame, max_length=self._limit + 1)
        except zstd.ZstdError as error:
            raise CodecError("zstd", "decompress", _reason_of(error), position) from error
        if len(data) > self._limit:
            raise CodecError("zstd", "decompress", f"expected at most {self._limit} bytes, found more", position)
        if not decompressor.eof or decompressor.unused_data:
            raise CodecError("zstd", "decompress", "expected one whole frame, found another length", position)
        return data


def _are_bytes(payloads: list[Any]) -> bool:
    """Say whether all of one or more objects are bytes and nothing else."""
    return set(map(type, payloads)) == {bytes}


def _reason_of(error: Exception) -> str:
    """Say what went wrong, without what the codec may have quoted of the item."""
    return str(error) if isinstance(error, UnreadableVersion) else type(error).__name__
