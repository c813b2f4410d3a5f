"""Which codec reads a journal: the one whose name it records, or the one that the user names."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posjournal_async.cli.shown import printable
from posjournal_async.codecs import BytesCodec, JsonCodec, MsgpackCodec

if TYPE_CHECKING:
    from posjournal_async.codecs import Codec

__all__ = ["TypedItems", "codec_of"]

_KNOWN: dict[str, type[MsgpackCodec | JsonCodec | BytesCodec]] = {
    "msgpack": MsgpackCodec,
    "json": JsonCodec,
    "bytes": BytesCodec,
}

# Typed codecs record how they encode and the version of the type: what they wrote is read without the type. Protocol
# Buffers cannot be read without it, and are shown as bytes.
_TYPED = re.compile(r"(mp|json|pb)/([1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])")
_ENCODINGS: dict[str, type[MsgpackCodec | JsonCodec | BytesCodec]] = {
    "mp": MsgpackCodec,
    "json": JsonCodec,
    "pb": BytesCodec,
}


class TypedItems:
    """What a typed codec wrote, read and written without the type: each payload begins with its version.

    Attributes:
        name: Name that is recorded on disk, such as "mp/2".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._encoding, version = name.split("/")
        self._version = int(version)
        self._codec: Codec[Any] = _ENCODINGS[self._encoding]()

    def accepts(self, name: str) -> bool:
        """Say whether what was recorded under another name has the same encoding, and no newer version."""
        typed = _TYPED.fullmatch(name)
        return typed is not None and typed[1] == self._encoding and int(typed[2]) <= self._version

    def encode(self, item: Any, /) -> bytes:
        """Turn an item into bytes of the newest version."""
        return bytes([self._version]) + self._codec.encode(item)

    def decode(self, data: bytes, /) -> Any:
        """Turn bytes of any version into an item."""
        return self._codec.decode(data[1:])


def codec_of(recorded: str, given: str | None, *, is_raw: bool = False) -> Codec[Any]:
    """Return the codec to read a journal with.

    Args:
        recorded: Name of the codec that the journal records; "" if nothing says it, so that there are no items.
        given: What the user said behind `--codec`, or None.
        is_raw: Whether the bytes that the codec made are asked for, not the items.

    Raises:
        click.UsageError: There is no such codec, or none is known for that name and the user named none.
    """
    if is_raw or not (recorded or given):
        return BytesCodec()
    if given is not None:
        return _named_by_user(given)
    if recorded in _KNOWN:
        return _KNOWN[recorded]()
    if _TYPED.fullmatch(recorded):
        return TypedItems(recorded)
    raise click.UsageError(
        f"the journal records the codec '{printable(recorded)}', which is not known here: "
        "name one by --codec, as module:attribute, or see the bytes by --codec bytes"
    )


def _named_by_user(given: str) -> Codec[Any]:
    if given in _KNOWN:
        return _KNOWN[given]()
    module_name, colon, attribute = given.partition(":")
    if not (module_name and colon and attribute):
        raise click.BadOptionUsage(
            "codec", f"--codec: expected msgpack, json, bytes or module:attribute, found '{printable(given)}'"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        if isinstance(found, type) or not _is_codec(found):
            found = found()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise click.BadOptionUsage("codec", f"--codec {printable(given)}: {printable(reason)}") from error
    if not _is_codec(found):
        raise click.BadOptionUsage("codec", f"--codec {printable(given)}: it has no name, encode and decode")
    codec: Codec[Any] = found
    return codec


def _is_codec(found: object) -> bool:
    return all(hasattr(found, needed) for needed in ("name", "encode", "decode"))
