"""`PydanticCodec`: items that are pydantic models, as JSON. Needs the extra `pydantic`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, overload

from posjournal_async.codecs.classes import check_class, item_classes
from posjournal_async.codecs.versions import NO_UPCASTERS, Versions, check_functions

try:
    from pydantic import VERSION, BaseModel, TypeAdapter
    from pydantic_core import from_json, to_json
except ImportError as error:
    raise ImportError(
        "PydanticCodec needs the extra \"pydantic\": pip install 'posjournal_async[pydantic]'", name="pydantic"
    ) from error

# Older ones write items, and cannot read by the fields' names: what was acknowledged could not be read.
if tuple(map(int, VERSION.split(".")[:2])) < (2, 11):
    raise ImportError(
        f"PydanticCodec needs pydantic 2.11 or newer, found {VERSION}: pip install 'posjournal_async[pydantic]'",
        name="pydantic",
    )

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PydanticCodec"]

T = TypeVar("T")


class PydanticCodec(Generic[T]):
    r"""Items of one pydantic model (or a pydantic dataclass, a union of them...), as JSON under the fields' own names.

    A journal holds items of several versions, and gives all of them back as items of the current one. Raise `version`
    when what is stored can no longer be read as the model, or means something else, and give the upcaster from the
    version before. A new field that has a default needs no new version.

    An upcaster gets the stored item as JSON has it (dicts, lists, str, int...), and returns the same in the shape of
    the next version. The last result is validated as if it had been stored.

    Opening a journal with a newer version records that version. Code with an older one is refused from then on.

    `append` refuses items of another class, a subclass too, and fields that hold something else than they say.

    * Aliases are not used, neither for writing nor for reading.
    * Computed fields, private attributes and fields with `exclude` are not stored.
    * Floats that may be NaN or infinite need the setting `ser_json_inf_nan="constants"`, and bytes that may be no UTF-8
      both `ser_json_bytes="base64"` and `val_json_bytes="base64"`: without them pydantic writes null, or refuses.
    * A field that is missing, which `model_construct` makes possible, is only noticed when the item is read.
    * A secret (`SecretStr` and its like) is stored as asterisks, unless the model says how to write it: it is lost.
    * A field that holds a subclass of what it says is stored without what that adds.
    * What a field of no type (`Any`) holds comes back as JSON has it: a datetime as a string, a tuple as a list.

    Args:
        item_type: The model. Type checkers want to be told a union:
            `codec: PydanticCodec[A | B] = PydanticCodec(A | B)`.
        version: Version of the items that are written, 1 to 255.
        oldest: Oldest version that is read; a journal that may hold older items is refused.
        upcasters: For each version from `oldest` to `version - 1`, a function from an item of it to one of the next.

    Raises:
        InvalidConfiguration: A version is out of its range, or an upcaster is missing or not needed.
        TypeError: A version is no integer, or an upcaster cannot be called.
        pydantic.PydanticUserError: pydantic does not know the type.

    Example:
        >>> from typing import Any
        >>> from pydantic import BaseModel
        >>> from posjournal_async.codecs.pydantic import PydanticCodec
        >>> class Order(BaseModel):
        ...     number: int
        ...     cents: int
        >>> def cents(old: dict[str, Any]) -> dict[str, Any]:
        ...     return {"number": old["number"], "cents": round(old["euros"] * 100)}
        >>> codec = PydanticCodec(Order, version=2, upcasters={1: cents})
        >>> codec.encode(Order(number=7, cents=250))
        b'\x02{"number":7,"cents":250}'
        >>> codec.decode(b'\x01{"number":6,"euros":1.25}')
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
    ) -> None: ...

    # A class that is not the one that the place of the codec asks for: else the next overload would let any pass.
    @overload
    def __init__(
        self: PydanticCodec[Never],
        item_type: type[object],
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
    ) -> None: ...

    # A union, which is no class to type checkers.
    @overload
    def __init__(
        self: PydanticCodec[Any],
        item_type: object,
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
    ) -> None: ...

    def __init__(
        self,
        item_type: Any,
        /,
        *,
        version: int = 1,
        oldest: int = 1,
        upcasters: Mapping[int, Callable[[Any], Any]] = NO_UPCASTERS,
    ) -> None:
        check_functions(upcasters)
        self._versions = Versions("json", current=version, oldest=oldest, upcasters=upcasters)
        self.name = self._versions.name
        self.accepts = self._versions.accepts
        self._head = self._versions.head
        self._classes = item_classes(item_type, BaseModel)
        adapter = TypeAdapter[T](item_type)
        self._to_json = adapter.serializer.to_json
        self._validate: Callable[[bytes], T] = partial(adapter.validator.validate_json, by_alias=False, by_name=True)

    def encode(self, item: T, /) -> bytes:
        """Return the version and the item as JSON."""
        if self._classes is not None and type(item) not in self._classes:
            check_class(item, self._classes)
        # What pydantic would only warn of is an item that it refuses to read.
        return self._head + self._to_json(item, by_alias=False, round_trip=True, warnings="error")

    def decode(self, data: bytes, /) -> T:
        """Return the item, of whatever version it was written."""
        if data[:1] == self._head:
            return self._validate(data[1:])
        steps = self._versions.steps_from(data)
        item = from_json(data[1:])
        for step in steps:
            item = step(item)
        # By way of JSON, since a strict model takes some types from JSON and not from what that is made of.
        return self._validate(to_json(item, by_alias=False))
