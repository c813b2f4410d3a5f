"""Versions of items, of each typed codec: older ones come out as the current one, others are refused."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posjournal_async import InvalidConfiguration
from posjournal_async.codecs.versions import UnreadableVersion, Versions
from tests.codecs.orders import KINDS, NEWEST, Kind

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)
PAIRS = [(old, new) for old, new in itertools.product(range(1, NEWEST + 1), repeat=2) if old <= new]


@each_kind
@pytest.mark.parametrize(("old", "new"), PAIRS)
@settings(max_examples=25)
@given(number=st.integers(0, 2**40), note=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_an_item_of_any_version_comes_out_as_the_current_one(
    kind: Kind, old: int, new: int, number: int, note: str
) -> None:
    """One step after the other, and none where it is of that version already."""
    encoded = kind.codec(old).encode(kind.order(number, old, note))
    assert kind.codec(new).decode(encoded) == kind.order(number, new, note)


@each_kind
@pytest.mark.parametrize("version", range(1, NEWEST + 1))
def test_the_name_and_the_first_byte_tell_encoding_and_version(kind: Kind, version: int) -> None:
    """Both are on disk: they must never change."""
    codec = kind.codec(version)
    assert codec.name == f"{kind.encoding}/{version}"
    encoded = codec.encode(kind.order(7, version))
    assert type(encoded) is bytes
    assert encoded[0] == version


@each_kind
@pytest.mark.parametrize(("new", "old"), [(new, old) for old, new in PAIRS if old < new])
def test_an_item_of_a_newer_version_is_refused(kind: Kind, new: int, old: int) -> None:
    """Also where its bytes would pass for an older one: a field that is not known is nothing to any of the codecs."""
    encoded = kind.codec(new).encode(kind.order(7, new))
    with pytest.raises(UnreadableVersion) as raised:
        kind.codec(old).decode(encoded)
    expected = "1" if old == 1 else f"1 to {old}"
    assert str(raised.value) == f"version of the item: expected {expected}, found {new}"


@each_kind
def test_an_item_older_than_the_oldest_is_refused(kind: Kind) -> None:
    """Its upcaster is gone, and the next one would take it for what it is not."""
    codec = kind.codec(3, oldest=2)
    assert codec.decode(kind.codec(2).encode(kind.order(7, 2))) == kind.order(7, 3)
    with pytest.raises(UnreadableVersion, match="expected 2 to 3, found 1"):
        codec.decode(kind.codec(1).encode(kind.order(7, 1)))


@each_kind
def test_an_item_without_a_version_is_refused(kind: Kind) -> None:
    """No byte at all, and a byte that is no version."""
    for data, found in ((b"", "none"), (b"\0", "0"), (b"\xff\x80", "255")):
        with pytest.raises(UnreadableVersion, match=f"expected 1 to 3, found {found}"):
            kind.codec(3).decode(data)


@each_kind
@given(st.binary(max_size=40), st.integers(1, NEWEST))
def test_any_bytes_are_an_item_or_an_exception(kind: Kind, data: bytes, version: int) -> None:
    """Whatever stands behind a version: an item of the current class, or an exception that is no interruption."""
    try:
        item = kind.codec(NEWEST).decode(bytes([version]) + data)
    except Exception:  # noqa: BLE001 - each package has its own
        return
    assert type(item) is kind.classes[NEWEST - 1]


@each_kind
@pytest.mark.parametrize(
    ("version", "oldest", "given_for", "expected"),
    [
        pytest.param(2, 1, [], "expected those from version 1, found none", id="none"),
        pytest.param(3, 1, [2], "expected those from version 1, 2, found those from version 2", id="the first missing"),
        pytest.param(3, 1, [1], "expected those from version 1, 2, found those from version 1", id="the last missing"),
        pytest.param(1, 1, [1], "expected none, found those from version 1", id="one too many"),
        pytest.param(3, 2, [1, 2], "expected those from version 2, found those from version 1, 2", id="below oldest"),
    ],
)
def test_a_chain_that_is_not_complete_is_refused(
    kind: Kind, version: int, oldest: int, given_for: list[int], expected: str
) -> None:
    """When the codec is made, before there is a journal."""
    upcasters = {step: kind.upcasters[step] for step in given_for}
    with pytest.raises(InvalidConfiguration) as raised:
        kind.make(kind.classes[version - 1], version=version, oldest=oldest, upcasters=upcasters)
    assert str(raised.value) == f"upcasters: {expected}"


@each_kind
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"version": 0}, InvalidConfiguration),
        ({"version": 256, "oldest": 256}, InvalidConfiguration),
        ({"oldest": 2}, InvalidConfiguration),
        ({"oldest": 0}, InvalidConfiguration),
        ({"version": "1"}, TypeError),
        ({"version": True}, TypeError),
        ({"version": 2, "upcasters": {1: "not a function"}}, TypeError),
    ],
    ids=str,
)
def test_what_is_no_version_or_no_upcaster_is_refused(
    kind: Kind, fields: dict[str, Any], error: type[Exception]
) -> None:
    """A version is a byte that is not 0."""
    with pytest.raises(error):
        kind.make(kind.classes[0], **fields)


@each_kind
def test_the_largest_version_fits_the_disk(kind: Kind) -> None:
    """A name has at most 8 characters."""
    codec = kind.make(kind.classes[0], version=255, oldest=255)
    assert codec.name == f"{kind.encoding}/255"
    assert len(codec.name) <= 8
    order = kind.order(7, 1)
    assert codec.decode(codec.encode(order)) == order


@each_kind
def test_what_is_given_later_does_not_change_the_codec(kind: Kind) -> None:
    """The upcasters are those of the time at which it was made."""
    upcasters = {1: kind.upcasters[1]}
    codec = kind.make(kind.classes[1], version=2, upcasters=upcasters)
    upcasters.clear()
    assert codec.decode(kind.codec(1).encode(kind.order(7, 1))) == kind.order(7, 2)


@given(st.integers(1, 255), st.data())
def test_a_name_is_accepted_from_the_oldest_version_to_the_current_one(current: int, data: st.DataObject) -> None:
    """And no other name is, however much it looks like one."""
    oldest = data.draw(st.integers(1, current))
    versions = Versions("mp", current=current, oldest=oldest, upcasters=dict.fromkeys(range(oldest, current), ""))
    accepted = [version for version in range(300) if versions.accepts(f"mp/{version}")]
    assert accepted == list(range(oldest, current + 1))
    for other in (f"pb/{current}", f"mp/0{current}", f"mp/{current} ", f"mp{current}", "mp/", "mp", "", "msgpack"):
        assert not versions.accepts(other)


def test_an_unreadable_version_pickles() -> None:
    """As the errors of the library do."""
    again = pickle.loads(pickle.dumps(UnreadableVersion(1, 2, 3)))  # noqa: S301 - our own
    assert (again.oldest, again.current, again.found) == (1, 2, 3)


@each_kind
def test_a_missing_package_is_told_with_its_extra(kind: Kind) -> None:
    """One sentence says what to install; the library itself is imported all the same."""
    missing = {"protobuf": "google.protobuf"}.get(kind.package, kind.package)
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from posjournal_async import Journal\n"
        f"try: import {kind.module}\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codec = kind.make.__name__
    needed = f"posjournal_async[{kind.package}]"
    assert done.stdout == f"{codec} needs the extra \"{kind.package}\": pip install '{needed}'\n"


def test_the_library_imports_no_package_for_typed_items() -> None:
    """Each comes with its own module."""
    code = "import sys, posjournal_async; print({'msgspec', 'pydantic', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
