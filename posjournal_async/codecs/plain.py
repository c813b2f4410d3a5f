"""The codecs that need no package but those of the library: MessagePack, bytes, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BytesCodec", "JsonCodec", "MsgpackCodec"]

# msgpack ships no types; this is its door.
_msgpack: Any = msgpack

# The longest item, in bytes, behind which a packer is kept: it never gives back what it took for its longest one.
_LONGEST_KEPT = 2**20


class MsgpackCodec:
    """Items that MessagePack knows: None, bool, int, float, str, bytes, lists and dicts of these, datetime with a zone.

    Tuples come back as lists, so a tuple cannot be a key. Integers range from -2**63 to 2**64 - 1, and nesting goes
    1,024 levels deep, or 512 with msgpack 1.1: what is nested deeper, has a tuple for a key, or a datetime that in UTC
    lies before the year 1 or after 9999, is refused, or is stored and raises `CodecError` when read.

    Example:
        >>> from posjournal_async import MsgpackCodec
        >>> codec = MsgpackCodec()
        >>> codec.decode(codec.encode({"id": 7, "tags": ["a", "b"]}))
        {'id': 7, 'tags': ['a', 'b']}
    """

    name = "msgpack"

    def __init__(self) -> None:
        # Packers that nobody is using, each by its `pack`: making one costs as much as packing a small dict. It keeps
        # no state between calls, but during one it does, and the item may run Python code (a zone, a subclass of dict)
        # that lets another thread in or comes back here: so a packer is out of the list while it packs. That `pop` and
        # `append` of a list are atomic holds under the GIL and in free-threaded builds.
        self._packers: list[Callable[[Any], bytes]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickles and copies get: all but the packers."""
        return {**self.__dict__, "_packers": []}

    def encode(self, item: Any, /) -> bytes:
        """Return the item as MessagePack. Several threads may share a codec."""
        try:
            pack = self._packers.pop()
        except IndexError:
            pack = _msgpack.Packer(datetime=True).pack
        data = pack(item)
        if len(data) <= _LONGEST_KEPT:
            self._packers.append(pack)
        return data

    def decode(self, data: bytes, /) -> Any:
        """Return the item. Keys need not be strings."""
        return _msgpack.unpackb(data, strict_map_key=False, timestamp=3)


class BytesCodec:
    """Items that are bytes already, stored as they are.

    `bytearray` and `memoryview` are taken too and come back as `bytes`.

    Example:
        >>> from posjournal_async import BytesCodec
        >>> BytesCodec().decode(BytesCodec().encode(b"raw"))
        b'raw'
    """

    name = "bytes"

    def encode(self, item: bytes | bytearray | memoryview, /) -> bytes:
        """Return the item itself, or a copy of it where it could still change."""
        if type(item) is bytes:
            return item
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        raise TypeError(f"item: expected bytes, found {type(item).__name__}")

    def decode(self, data: bytes, /) -> bytes:
        """Return the bytes."""
        return data


class JsonCodec:
    """Items that JSON knows, as compact UTF-8.

    `NaN` and infinities are refused, since no other reader would take them. Tuples come back as lists, and keys as
    strings.

    Example:
        >>> from posjournal_async import JsonCodec
        >>> JsonCodec().encode({"id": 7})
        b'{"id":7}'
    """

    name = "json"

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def encode(self, item: Any, /) -> bytes:
        """Return the item as compact JSON."""
        return self._encode(item).encode()

    def decode(self, data: bytes, /) -> Any:
        """Return the item."""
        return json.loads(data)
