"""Which classes the items of a type have, where that can be told from the type."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

__all__ = ["check_class", "item_classes"]


def item_classes(item_type: object, base: type) -> frozenset[type] | None:
    """Return the classes of which an item must have one, or None if the type does not say.

    It says so if it is a dataclass or derives from `base`, or a union of such classes. An item of a subclass would come
    back as the class that the type names, without what the subclass adds; so it is none of these classes.

    Args:
        item_type: A class, a union, a generic type with arguments, an alias, any of these annotated.
        base: What the classes derive from whose fields are written one by one.
    """
    item_type = getattr(item_type, "__value__", item_type)  # what a `type` statement names
    origin = get_origin(item_type)
    if origin is Annotated:
        return item_classes(get_args(item_type)[0], base)
    if origin in {Union, UnionType}:
        members = [item_classes(member, base) for member in get_args(item_type)]
        known = [member for member in members if member is not None]
        return frozenset[type]().union(*known) if len(known) == len(members) else None
    found: Any = item_type if origin is None else origin
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, base)):
        return None
    classes: set[type] = {found}
    return frozenset(classes)


def check_class(item: object, classes: frozenset[type]) -> None:
    """Refuse an item of another class.

    Raises:
        TypeError: It is one.
    """
    if type(item) not in classes:
        expected = " or ".join(sorted(found.__name__ for found in classes))
        raise TypeError(f"item: expected {expected}, found {type(item).__name__}")
