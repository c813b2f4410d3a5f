"""What a journal is made of: `Config` for the journal itself, `Context` for what it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from posjournal_async.codecs import Codec, MsgpackCodec
from posjournal_async.errors import InvalidConfiguration
from posjournal_async.format.record import LONGEST_PAYLOAD
from posjournal_async.metrics import Metrics, NoMetrics
from posjournal_async.storage.protocols import PARTITION_NAME

if TYPE_CHECKING:
    from posjournal_async.storage.protocols import Storage

__all__ = ["Config", "Context"]

T = TypeVar("T", default=Any)

# The longest suffix that a journal appends to its base name, so that the whole stays a valid partition name.
_LONGEST_SUFFIX = len("_checkpoint")
_LONGEST_BASE_NAME = 64 - _LONGEST_SUFFIX


@dataclass(frozen=True, kw_only=True)
class Config(Generic[T]):
    """How a journal is kept. Checked when it is made; sizes are in bytes.

    Attributes:
        partition: Base name of the journal in its storage: 1 to 53 of `A-Z a-z 0-9 _ -`.
        items_per_section: Items in one section, at least 1. Recorded on disk.
        codec: Turns items into bytes and back. Its name is recorded on disk; another one is refused later, unless the
            codec accepts what is recorded.
        compression: zstd level, from -131072 to 22, for new records; None leaves them as they are. May change between
            opens. Compressing runs on the event loop, as the codec does: high levels and large items hold it up.
        write_buffer: Bytes that may wait to be written, at least 1. Appends beyond it wait; an item larger than it
            goes through alone.
        max_item_size: Encoded length above which `append` refuses, and decompressed length above which reading refuses.
        max_open_blobs: Sealed sections kept open for reading, at least 1: a file handle each, and 8 bytes of memory for
            each of its items.

    Raises:
        InvalidConfiguration: A value is out of its range.
        TypeError: A value is of the wrong type.

    Example:
        >>> from posjournal_async import Config
        >>> Config(partition="orders", items_per_section=1_000).write_buffer
        1048576
    """

    partition: str
    items_per_section: int = 65_536
    codec: Codec[T] = field(default_factory=MsgpackCodec)
    compression: int | None = None
    write_buffer: int = 2**20
    max_item_size: int = 64 * 2**20
    max_open_blobs: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.partition, str):
            raise TypeError(f"partition: expected str, found {type(self.partition).__name__}")
        if not PARTITION_NAME.fullmatch(self.partition) or len(self.partition) > _LONGEST_BASE_NAME:
            expected = f"1 to {_LONGEST_BASE_NAME} of A-Z a-z 0-9 _ -"
            raise InvalidConfiguration("partition", expected, repr(self.partition))
        _check_range("items_per_section", self.items_per_section, 1, 2**63)
        _check_range("write_buffer", self.write_buffer, 1, 2**40)
        _check_range("max_item_size", self.max_item_size, 1, LONGEST_PAYLOAD)
        _check_range("max_open_blobs", self.max_open_blobs, 1, 2**20)
        if self.compression is not None:
            _check_range("compression", self.compression, -131_072, 22)
        if isinstance(self.codec, type):
            name = self.codec.__name__
            raise TypeError(f"codec: expected a Codec, found the class {name}: make one of it, as in {name}()")
        for needed in ("name", "encode", "decode"):
            if not hasattr(self.codec, needed):
                raise TypeError(f"codec: expected a Codec, found {type(self.codec).__name__} without {needed}")
        name = self.codec.name
        if not isinstance(name, str):
            raise TypeError(f"codec name: expected str, found {type(name).__name__}")
        if not (name.isascii() and name.isprintable() and 1 <= len(name) <= 8):
            raise InvalidConfiguration("codec name", "1 to 8 printable ASCII characters", repr(name))


def _check_range(what: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what}: expected int, found {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidConfiguration(what, f"{least} to {most}", value)


@dataclass(frozen=True)
class Context:
    """What a journal runs on: where its bytes go, who counts, and how it is called there.

    Attributes:
        storage: Where the blobs are kept. Journals of different partitions may share one.
        metrics: Where counts and durations go.
        label: Name of this part of the service in metrics; where it is "", that is the partition of the journal.

    Example:
        >>> from posjournal_async import Context, MemoryStorage
        >>> Context(MemoryStorage(), label="shop").with_label("orders").label
        'shop_orders'
    """

    storage: Storage
    metrics: Metrics = field(default_factory=NoMetrics)
    label: str = ""

    def with_label(self, label: str) -> Context:
        """Return the same context one level down: labels are joined by an underscore."""
        return replace(self, label=f"{self.label}_{label}" if self.label else label)
