"""`MsgspecCodec`: items that msgspec knows the type of, as MessagePack. Needs the extra `msgspec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, overload

from posjournal_async.codecs.classes import check_class, item_classes
from posjournal_async.codecs.versions import NO_UPCASTERS, Versions, check_functions

try:
    import msgspec
except ImportError as error:
    raise ImportError(
        "MsgspecCodec needs the extra \"msgspec\": pip install 'posjournal_async[msgspec]'", name="msgspec"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MsgspecCodec"]

T = TypeVar("T")

_TOOLS = {"_encode", "_decode", "_decode_untyped"}


class MsgspecCodec(Generic[T]):
    r"""Items of one type that msgspec knows (a `Struct`, a dataclass, a union of them...), as MessagePack.

    A journal holds items of several versions, and gives all of them back as items of the current one. Raise `version`
    when what is stored can no longer be read as the type, or means something else, and give the upcaster from the
    version before. A new field that has a default needs no new version.

    An upcaster gets what msgspec makes of the stored item without a type (dicts, lists, str, int...), and returns the
    same in the shape of the next version. The last result is read as if it had been stored: what msgspec would refuse
    in a stored item is a `CodecError`.

    Opening a journal with a newer version records that version. Code with an older one is refused from then on.

    Items that are a `Struct` or a dataclass, or a union of these, must be of that very class. What is in their fields
    is not checked: msgspec writes it, and refuses to read it if it is not what the annotations say.

    Args:
        item_type: Type of the items. Type checkers want to be told a union:
            `codec: MsgspecCodec[A | B] = MsgspecCodec(A | B)`.
        version: Version of the items that are written, 1 to 255.
        oldest: Oldest version that is read; a journal that may hold older items is refused.
        upcasters: For each version from `oldest` to `version - 1`, a function from an item of it to one of the next.
        enc_hook: Makes what msgspec knows of objects that it does not know, as for `msgspec.msgpack.Encoder`.
        dec_hook: The other way, as for `msgspec.msgpack.Decoder`.

    Raises:
        InvalidConfiguration: A version is out of its range, or an upcaster is missing or not needed.
        TypeError: A version is no integer, an upcaster cannot be called, or msgspec does not know the type.

    Example:
        >>> from typing import Any
        >>> import msgspec
        >>> from posjournal_async.codecs.msgspec import MsgspecCodec
        >>> class Order(msgspec.Struct):
        ...     number: int
        ...     cents: int
        >>> def cents(old: dict[str, Any]) -> dict[str, Any]:
        ...     return {"number": old["number"], "cents": round(old["euros"] * 100)}
        >>> codec = MsgspecCodec(Order, version=2, upcasters={1: cents})
        >>> codec.decode(codec.encode(Order(7, 250)))
        Order(number=7, cents=250)
        >>> codec.decode(b"\x01" + msgspec.msgpack.encode({"number": 6, "euros": 1.25}))
        Order(number=6, cents=125)
    """

    @overload
    def __init__(
        self,
        item_type: type[T],
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[type[Any], Any], Any] | None = None,
    ) -> None: ...

    # A class that is not the one that the place of the codec asks for: else the next overload would let any pass.
    @overload
    def __init__(
        self: MsgspecCodec[Never],
        item_type: type[object],
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[type[Any], Any], Any] | None = None,
    ) -> None: ...

    # A union, which is no class to type checkers.
    @overload
    def __init__(
        self: MsgspecCodec[Any],
        item_type: object,
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[type[Any], Any], Any] | None = None,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 - all but the type by name
        self,
        item_type: Any,
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[type[Any], Any], Any] | None = None,
    ) -> None:
        check_functions(upcasters)
        self._versions = Versions("mp", current=version, oldest=oldest, upcasters=upcasters)
        self.name = self._versions.name
        self.accepts = self._versions.accepts
        self._head = self._versions.head
        self._classes = item_classes(item_type, msgspec.Struct)
        self._given = item_type, enc_hook, dec_hook
        self._make_tools()

    def _make_tools(self) -> None:
        item_type, enc_hook, dec_hook = self._given
        self._encode = msgspec.msgpack.Encoder(enc_hook=enc_hook).encode
        self._decode: Callable[[bytes], T] = msgspec.msgpack.Decoder(item_type, dec_hook=dec_hook).decode
        self._decode_untyped = msgspec.msgpack.Decoder().decode

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickles and copies get: all but msgspec's tools, which do not pickle."""
        return {name: value for name, value in self.__dict__.items() if name not in _TOOLS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled, and make the tools anew."""
        self.__dict__.update(state)
        self._make_tools()

    def encode(self, item: T, /) -> bytes:
        """Return the version and the item as MessagePack."""
        if self._classes is not None and type(item) not in self._classes:
            check_class(item, self._classes)
        return self._head + self._encode(item)

    def decode(self, data: bytes, /) -> T:
        """Return the item, of whatever version it was written."""
        if data[:1] == self._head:
            return self._decode(data[1:])
        steps = self._versions.steps_from(data)
        item = self._decode_untyped(data[1:])
        for step in steps:
            item = step(item)
        # By way of the bytes, since msgspec reads some types from MessagePack and not from what that is made of.
        return self._decode(self._encode(item))
