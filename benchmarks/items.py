"""The items that all adapters get: the same bytes, in the same order."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.adapters.adapter import Adapter

Kind = Literal["bytes", "dicts"]

# Items are made once and used in turn: position p has number p % COUNT.
COUNT = 1_000

# As `MsgpackCodec` does it, which is not imported: a process that measures a peer has nothing else in it.
_msgpack: Any = msgpack
encode: Callable[[Any], bytes] = _msgpack.Packer(datetime=True).pack
decode: Callable[[bytes], Any] = partial(_msgpack.unpackb, strict_map_key=False, timestamp=3)

DICT_BYTES = 100


def items_of(kind: Kind, item_bytes: int) -> list[Any]:
    """Return `COUNT` items of a length, or dicts of `DICT_BYTES` when they are encoded."""
    chance = random.Random(item_bytes)
    if kind == "bytes":
        return [chance.randbytes(item_bytes) for _ in range(COUNT)]
    return [_event(number, chance) for number in range(COUNT)]


def _event(number: int, chance: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "id": number,
        "at": 1_700_000_000.125 + number,
        "user": f"user-{chance.randrange(1_000_000)}",
        "tags": ["new", "paid"],
        "amount": chance.random(),
        "note": "",
    }
    # The length of a str up to 31 bytes is in the byte that says that it is one.
    event["note"] = "x" * (DICT_BYTES - len(encode(event)))
    return event


def feed_of(adapter: Adapter) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return what turns items into those that the adapter takes, each at the moment when it is taken."""
    if adapter.kind == "bytes" or adapter.encodes:
        return iter
    return partial(map, encode)


def decoder_of(adapter: Adapter) -> Callable[[bytes], Any] | None:
    """Return what turns items that the adapter gives into those that were put in, None if they are these."""
    return None if adapter.kind == "bytes" or adapter.encodes else decode
