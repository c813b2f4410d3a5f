"""Each kind of damage to the files of a small journal, and all damages of each kind."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING

from tests.damage.files import SLOT_FIELDS_LENGTH, records_in
from tests.format import writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from tests.damage.states import Key, State, Tree

__all__ = ["Damage", "Kind", "damages_of"]


class Kind(enum.Enum):
    """What was done to the files."""

    FLIP = "one bit turned over"
    CUT = "cut"
    JUNK = "something behind the end"
    RECORD = "a record in the place of another one"
    COPY = "the content of another file"
    SWAP = "the contents of two files exchanged"
    NEIGHBOUR = "a copy of a file as its neighbour"
    DELETE = "deleted"
    OLDER = "older copies"


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage.

    Attributes:
        kind: What was done.
        keys: The files that it was done to.
        what: The rest of what has to be known to do it again.
        make: Returns the files as they are then.
    """

    kind: Kind
    keys: tuple[Key, ...]
    what: str
    make: Callable[[], Tree]


def damages_of(state: State, kind: Kind, rng: Random, *, each_byte: bool) -> Iterator[Damage]:
    """Yield all damages of a kind; `each_byte` also to the padding of the checkpoint, which is 8 KiB of it."""
    if kind is Kind.FLIP:
        yield from _flips(state, each_byte=each_byte)
    elif kind is Kind.CUT:
        yield from _cuts(state, each_byte=each_byte)
    elif kind is Kind.OLDER:
        yield from _older_copies(state)
    else:
        yield from _MADE[kind](state, rng)


def _changed(state: State, kind: Kind, what: str, changes: dict[Key, bytes | None]) -> Damage:
    def make() -> Tree:
        tree = {**state.tree, **{key: content for key, content in changes.items() if content is not None}}
        return {key: content for key, content in tree.items() if changes.get(key, b"") is not None}

    return Damage(kind, tuple(changes), what, make)


def _flips(state: State, *, each_byte: bool) -> Iterator[Damage]:
    for key, content in state.tree.items():
        for at in range(len(content)):
            is_padding = key[0] == "j_checkpoint" and at % writer.SLOT_LENGTH >= SLOT_FIELDS_LENGTH
            if is_padding and not each_byte:
                continue
            for bit in (at % 8,) if is_padding else range(8):
                yield Damage(Kind.FLIP, (key,), f"{at}.{bit}", _flip(state, key, at, bit))


def _flip(state: State, key: Key, at: int, bit: int) -> Callable[[], Tree]:
    content = state.tree[key]
    return lambda: {**state.tree, key: content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]}


def _cuts(state: State, *, each_byte: bool) -> Iterator[Damage]:
    for key, content in state.tree.items():
        for length in range(len(content)):
            within = length % writer.SLOT_LENGTH
            if key[0] == "j_checkpoint" and not each_byte and SLOT_FIELDS_LENGTH + 1 < within < writer.SLOT_LENGTH - 1:
                continue
            yield Damage(Kind.CUT, (key,), f"to {length}", _cut(state, key, length))


def _cut(state: State, key: Key, length: int) -> Callable[[], Tree]:
    return lambda: {**state.tree, key: state.tree[key][:length]}


def _junk(state: State, rng: Random) -> Iterator[Damage]:
    records = [record for key, content in state.tree.items() for record in records_in(key, content).values()]
    behind = {
        "a zero": b"\0",
        "zeros": bytes(600),
        "a page of zeros": bytes(4096),
        "ones": b"\xff" * 100,
        "chance": rng.randbytes(50),
        "a length and no checksum": b"\5\0\0\0" + bytes(8),
        "a length of 2 GiB": b"\xff\xff\xff\xff" + bytes(8),
        **{f"a record of another salt, position {at}": writer.record(b"forged", 0, at) for at in range(10)},
        **{f"record {number}": record for number, record in enumerate(records)},
    }
    for key, content in state.tree.items():
        for what, junk in {**behind, "itself": content}.items():
            yield _changed(state, Kind.JUNK, what, {key: content + junk})


def _records(state: State, _: Random) -> Iterator[Damage]:
    found = {key: records_in(key, content) for key, content in state.tree.items()}
    places = [(key, at) for key, records in found.items() for at in records]
    for (key, at), (other, other_at) in permutations(places, 2):
        content = state.tree[key]
        end = at + len(found[key][at])
        forged = content[:at] + found[other][other_at] + content[end:]
        yield _changed(state, Kind.RECORD, f"at {at}: that of {other} at {other_at}", {key: forged})


def _copies(state: State, _: Random) -> Iterator[Damage]:
    for key, other in permutations(state.tree, 2):
        yield _changed(state, Kind.COPY, f"of {other}", {key: state.tree[other]})


def _swaps(state: State, _: Random) -> Iterator[Damage]:
    for key, other in combinations(state.tree, 2):
        yield _changed(state, Kind.SWAP, "", {key: state.tree[other], other: state.tree[key]})


def _neighbours(state: State, _: Random) -> Iterator[Damage]:
    for (partition, name), content in state.tree.items():
        number = int(name, 16)
        for neighbour in (number - 1, number + 1, number + 2):
            key = partition, f"{neighbour:016x}" if neighbour >= 0 else "f" * 16
            if key not in state.tree:
                yield _changed(state, Kind.NEIGHBOUR, f"of section {number}", {key: content})


def _deletions(state: State, _: Random) -> Iterator[Damage]:
    for key in state.tree:
        yield _changed(state, Kind.DELETE, "", {key: None})
        index = "j_offsets", key[1]
        if key[0] == "j_data" and index in state.tree:
            yield _changed(state, Kind.DELETE, "with its index", {key: None, index: None})
    for partition in ("j_data", "j_offsets"):
        there = [key for key in state.tree if key[0] == partition]
        if len(there) > 2:
            yield _changed(state, Kind.DELETE, "the whole partition", dict.fromkeys(there))


def _older_copies(state: State) -> Iterator[Damage]:
    older = {key: state.older_copies(key) for key in state.tree}
    for key, copies in older.items():
        for number, copy in enumerate(copies):
            yield _changed(state, Kind.OLDER, f"copy {number}", {key: copy})
    for key, other in combinations(state.tree, 2):
        for (number, copy), (other_number, other_copy) in product(enumerate(older[key]), enumerate(older[other])):
            what = f"copies {number} and {other_number}"
            yield _changed(state, Kind.OLDER, what, {key: copy, other: other_copy})
    for number, tree in enumerate(state.earlier):
        for key in tree:  # everything as it was, but for one file
            if state.tree.get(key) not in {None, tree[key]}:
                yield Damage(
                    Kind.OLDER, (*{**tree, **state.tree},), f"moment {number}, but {key}", _mixed(state, tree, key)
                )


def _mixed(state: State, earlier: Tree, key: Key) -> Callable[[], Tree]:
    return lambda: {**earlier, key: state.tree[key]}


_MADE: dict[Kind, Callable[[State, Random], Iterator[Damage]]] = {
    Kind.JUNK: _junk,
    Kind.RECORD: _records,
    Kind.COPY: _copies,
    Kind.SWAP: _swaps,
    Kind.NEIGHBOUR: _neighbours,
    Kind.DELETE: _deletions,
}
