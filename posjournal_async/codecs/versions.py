"""Versions of items: which of them a codec reads, and the steps from an old one to the current one.

The name of such a codec on disk is its encoding and the version, `mp/3`; each payload begins with one byte, the version
of that item. So a journal may hold items of several versions, and no item is ever taken for one of another version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from posjournal_async.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["NO_UPCASTERS", "UnreadableVersion", "Versions", "check_functions"]

U = TypeVar("U")

# For a codec that reads one version only.
NO_UPCASTERS: Mapping[int, Callable[[Any], Any]] = {}

# What one byte holds; 0 is none, so that zeros are no item.
_MOST = 255


class UnreadableVersion(ValueError):
    """The version of an item is none that the codec reads. The message holds nothing else of the item.

    Attributes:
        oldest: Oldest version that the codec reads.
        current: Newest one.
        found: Version of the item; None if it has not even that byte.
    """

    def __init__(self, oldest: int, current: int, found: int | None) -> None:
        super().__init__(oldest, current, found)
        self.oldest = oldest
        self.current = current
        self.found = found

    def __str__(self) -> str:
        expected = f"{self.current}" if self.oldest == self.current else f"{self.oldest} to {self.current}"
        return f"version of the item: expected {expected}, found {'none' if self.found is None else self.found}"


class Versions(Generic[U]):
    r"""The versions that a codec reads, with an upcaster from each but the last to the next one.

    Args:
        encoding: What comes before the `/` in the name on disk, up to 4 characters.
        current: Version of the items that are written, 1 to 255.
        oldest: Oldest version that is read, 1 to `current`.
        upcasters: For each version from `oldest` to the one before `current`, what leads to the next one.

    Attributes:
        name: Name of the codec on disk.
        head: The byte that payloads of the current version begin with.

    Raises:
        InvalidConfiguration: A version is out of its range, or an upcaster is missing or not needed.
        TypeError: A version is no integer.

    Example:
        >>> versions = Versions("mp", current=3, oldest=1, upcasters={1: "1 to 2", 2: "2 to 3"})
        >>> versions.name, versions.accepts("mp/2"), versions.accepts("mp/4")
        ('mp/3', True, False)
        >>> versions.steps_from(b"\x02...")
        ['2 to 3']
    """

    def __init__(self, encoding: str, *, current: int, oldest: int, upcasters: Mapping[int, U]) -> None:
        _check_version("version", current, _MOST)
        _check_version("oldest", oldest, current)
        needed = list(range(oldest, current))
        if sorted(upcasters) != needed:
            raise InvalidConfiguration("upcasters", _listed(needed), _listed(sorted(upcasters)))
        self.name = f"{encoding}/{current}"
        self.head = bytes([current])
        self._oldest = oldest
        self._current = current
        self._upcasters: Sequence[U] = [upcasters[version] for version in needed]
        self._accepted = frozenset(f"{encoding}/{version}" for version in range(oldest, current + 1))

    def accepts(self, name: str, /) -> bool:
        """Say whether a journal with this codec name holds no item that cannot be read."""
        return name in self._accepted

    def steps_from(self, data: bytes) -> Sequence[U]:
        """Return the upcasters that lead from the version of a payload to the current one, in order.

        Raises:
            UnreadableVersion: It is of a version that is not read.
        """
        found = data[0] if data else None
        if found is None or not self._oldest <= found <= self._current:
            raise UnreadableVersion(self._oldest, self._current, found)
        return self._upcasters[found - self._oldest :]


def check_functions(upcasters: Mapping[int, object]) -> None:
    """Refuse upcasters that cannot be called.

    Raises:
        TypeError: One cannot.
    """
    for upcaster in upcasters.values():
        if not callable(upcaster):
            raise TypeError(f"upcaster: expected a function, found {type(upcaster).__name__}")


def _check_version(what: str, version: object, most: int) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise TypeError(f"{what}: expected int, found {type(version).__name__}")
    if not 1 <= version <= most:
        raise InvalidConfiguration(what, f"1 to {most}", version)


def _listed(versions: Sequence[int]) -> str:
    return f"those from version {', '.join(map(str, versions))}" if versions else "none"
