"""`ProtobufCodec`: items that are protobuf messages. Needs the extra `protobuf`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from posjournal_async.codecs.classes import check_class
from posjournal_async.codecs.versions import Versions

try:
    from google.protobuf.message import Message
except ImportError as error:
    raise ImportError(
        "ProtobufCodec needs the extra \"protobuf\": pip install 'posjournal_async[protobuf]'", name="google.protobuf"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ProtobufCodec", "Upcaster"]

M = TypeVar("M", bound=Message)
Old = TypeVar("Old", bound=Message)


class Upcaster:
    """The step from one version of a message to the next.

    Args:
        message: Message class that the items of the old version were written with. It may be the same for several
            versions.
        upcast: Makes the message of the next version. It may change the one that it gets, and return that.

    Raises:
        TypeError: `message` is no message class, or `upcast` cannot be called.

    Example:
        >>> from google.protobuf.wrappers_pb2 import Int32Value, Int64Value
        >>> from posjournal_async.codecs.protobuf import Upcaster
        >>> Upcaster(Int32Value, lambda old: Int64Value(value=old.value * 100)).message.__name__
        'Int32Value'
    """

    def __init__(self, message: type[Old], upcast: Callable[[Old], Message], /) -> None:
        _check_message(message)
        if not callable(upcast):
            raise TypeError(f"upcaster: expected a function, found {type(upcast).__name__}")
        self.message: type[Message] = message
        self.upcast: Callable[[Any], Message] = upcast


_NONE_NEEDED: Mapping[int, Upcaster] = {}


class ProtobufCodec(Generic[M]):
    r"""Items of one protobuf message class, as protobuf writes them.

    Protobuf itself reads what was written before a field was added, or after one was: such a change needs no new
    version. Raise `version` when fields get another meaning or the items another message class, and give the upcaster
    from the version before; the journal then gives all items back as the current message.

    Opening a journal with a newer version records that version. Code with an older one is refused from then on.

    Args:
        message: Class of the items; they must be of that very class.
        version: Version of the items that are written, 1 to 255.
        oldest: Oldest version that is read; a journal that may hold older items is refused.
        upcasters: For each version from `oldest` to `version - 1`, its message class and the step to the next one.

    Raises:
        InvalidConfiguration: A version is out of its range, or an upcaster is missing or not needed.
        TypeError: A version is no integer, `message` is no message class, or an upcaster is no `Upcaster`.

    Example:
        >>> from google.protobuf.wrappers_pb2 import Int32Value, Int64Value
        >>> from posjournal_async.codecs.protobuf import ProtobufCodec, Upcaster
        >>> cents = Upcaster(Int32Value, lambda old: Int64Value(value=old.value * 100))
        >>> codec = ProtobufCodec(Int64Value, version=2, upcasters={1: cents})
        >>> codec.decode(codec.encode(Int64Value(value=250))).value
        250
        >>> codec.decode(b"\x01" + Int32Value(value=3).SerializeToString()).value
        300
    """

    def __init__(
        self,
        message: type[M],
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Upcaster] = _NONE_NEEDED,
    ) -> None:
        _check_message(message)
        for upcaster in upcasters.values():
            if not isinstance(upcaster, Upcaster):
                raise TypeError(f"upcaster: expected an Upcaster, found {type(upcaster).__name__}")
        self._versions = Versions("pb", current=version, oldest=oldest, upcasters=upcasters)
        self.name = self._versions.name
        self.accepts = self._versions.accepts
        self._head = self._versions.head
        self._message = message
        self._classes = frozenset[type]({message})
        self._decode = message.FromString

    def encode(self, item: M, /) -> bytes:
        """Return the version and the message. One that lacks a required field raises."""
        if type(item) is not self._message:
            check_class(item, self._classes)
        return self._head + item.SerializeToString()

    def decode(self, data: bytes, /) -> M:
        """Return the message, of whatever version it was written."""
        if data[:1] == self._head:
            return self._decode(data[1:])
        first, *rest = self._versions.steps_from(data)
        item = first.upcast(first.message.FromString(data[1:]))
        for step in rest:
            check_class(item, frozenset({step.message}))
            item = step.upcast(item)
        if type(item) is not self._message:
            check_class(item, self._classes)
        return cast("M", item)


def _check_message(message: object) -> None:
    if not isinstance(message, type):
        raise TypeError(f"message: expected a message class, found {type(message).__name__}")
    if not issubclass(message, Message):
        raise TypeError(f"message: expected a message class, found {message.__name__}")
