"""A crash-repairing, position-addressed, append-only journal for asyncio services."""

from posjournal_async.codecs import BytesCodec, Codec, JsonCodec, MsgpackCodec, ReadsOlder
from posjournal_async.config import Config, Context
from posjournal_async.contiguous import Contiguous
from posjournal_async.errors import (
    AppendError,
    CodecError,
    Corruption,
    EmptyAppend,
    InvalidConfiguration,
    InvalidRewind,
    ItemOutOfRange,
    ItemPruned,
    ItemTooLarge,
    JournalClosed,
    JournalError,
    JournalFailed,
    JournalLocked,
    PositionError,
    SizeOverflow,
    StorageError,
)
from posjournal_async.journal import Journal
from posjournal_async.metrics import Counters, Metrics, NoMetrics
from posjournal_async.recovery.repair import RecoveryReport
from posjournal_async.storage.file import FileStorage
from posjournal_async.storage.memory import MemoryStorage
from posjournal_async.storage.protocols import Blob, Lock, ReadsAtOnce, RemovesMany, Storage, WritesDurably

__all__ = [
    "AppendError",
    "Blob",
    "BytesCodec",
    "Codec",
    "CodecError",
    "Config",
    "Context",
    "Contiguous",
    "Corruption",
    "Counters",
    "EmptyAppend",
    "FileStorage",
    "InvalidConfiguration",
    "InvalidRewind",
    "ItemOutOfRange",
    "ItemPruned",
    "ItemTooLarge",
    "Journal",
    "JournalClosed",
    "JournalError",
    "JournalFailed",
    "JournalLocked",
    "JsonCodec",
    "Lock",
    "MemoryStorage",
    "Metrics",
    "MsgpackCodec",
    "NoMetrics",
    "PositionError",
    "ReadsAtOnce",
    "ReadsOlder",
    "RecoveryReport",
    "RemovesMany",
    "SizeOverflow",
    "Storage",
    "StorageError",
    "WritesDurably",
]
