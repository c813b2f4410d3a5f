"""`config`: what a journal is made of is checked when it is said, not when it is needed."""

import copy
import doctest
import math
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async import config
from posjournal_async.codecs import BytesCodec, Codec, JsonCodec, MsgpackCodec
from posjournal_async.config import Config, Context
from posjournal_async.errors import InvalidConfiguration
from posjournal_async.metrics import Counters, NoMetrics
from posjournal_async.storage.memory import MemoryStorage

RANGES = [
    ("items_per_section", 1, 2**63),
    ("write_buffer", 1, 2**40),
    ("max_item_size", 1, 2**31 - 2),
    ("max_open_blobs", 1, 2**20),
    ("compression", -131_072, 22),
]
NAME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def codec_named(name: Any) -> Codec[Any]:
    return type("NamedCodec", (BytesCodec,), {"name": name})()  # type: ignore[no-any-return]


def config_of(**fields: Any) -> Config[Any]:
    return Config(**{"partition": "orders", **fields})


def test_the_defaults_are_those_of_the_contract() -> None:
    """A partition is all that must be said."""
    made = config_of()
    assert made.items_per_section == 65_536
    assert isinstance(made.codec, MsgpackCodec)
    assert made.compression is None
    assert made.write_buffer == 2**20
    assert made.max_item_size == 64 * 2**20
    assert made.max_open_blobs == 64


def test_the_partition_must_be_said() -> None:
    """There is no journal without a name."""
    with pytest.raises(TypeError):
        Config()  # type: ignore[call-arg]


def test_fields_are_given_by_name() -> None:
    """No two numbers can be mixed up."""
    with pytest.raises(TypeError):
        Config("orders", 10)  # type: ignore[call-arg]


def test_no_two_configurations_share_a_codec() -> None:
    """The default codec keeps a packer, so each configuration has its own."""
    assert config_of().codec is not config_of().codec


@pytest.mark.parametrize("edge", [0, 1], ids=["least", "most"])
@pytest.mark.parametrize(("name", "least", "most"), RANGES)
def test_the_edge_of_a_range_is_inside(name: str, least: int, most: int, edge: int) -> None:
    """The least and the most that the documentation names are allowed."""
    value = (least, most)[edge]
    assert getattr(config_of(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param(name, value, f"{least} to {most}", id=f"{name}-{value}")
        for name, least, most in RANGES
        for value in (least - 1, most + 1, -(2**70), 2**70)
    ],
)
def test_a_number_outside_its_range_is_refused(name: str, value: int, expected: str) -> None:
    """The error names the field, what it may be and what it was."""
    with pytest.raises(InvalidConfiguration) as caught:
        config_of(**{name: value})
    assert (caught.value.what, caught.value.expected, caught.value.found) == (name, expected, value)


@pytest.mark.parametrize(
    "value", [1.0, math.nan, "1", b"1", True, [1], object()], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("name", [name for name, _, _ in RANGES])
def test_a_number_of_another_type_is_refused(name: str, value: object) -> None:
    """Neither a whole float nor a bool nor a text passes for an integer."""
    with pytest.raises(TypeError, match=f"{name}: expected int, found {type(value).__name__}"):
        config_of(**{name: value})


@pytest.mark.parametrize("name", [name for name, _, _ in RANGES if name != "compression"])
def test_none_is_no_number(name: str) -> None:
    """Only compression may be absent."""
    with pytest.raises(TypeError, match=f"{name}: expected int, found NoneType"):
        config_of(**{name: None})


@given(st.text(NAME_CHARACTERS, min_size=1, max_size=53))
def test_a_name_of_the_alphabet_is_taken(partition: str) -> None:
    """Every name of 1 to 53 letters, digits, underscores and hyphens is a partition's."""
    assert config_of(partition=partition).partition == partition


@given(st.text(max_size=60))
def test_a_name_that_is_taken_is_of_the_alphabet(partition: str) -> None:
    """No other text at all is a partition's name."""
    if 1 <= len(partition) <= 53 and not set(partition) - set(NAME_CHARACTERS):
        assert config_of(partition=partition).partition == partition
        return
    with pytest.raises(InvalidConfiguration) as caught:
        config_of(partition=partition)
    assert (caught.value.what, caught.value.found) == ("partition", repr(partition))


@pytest.mark.parametrize(
    "partition",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "/",
        "a\\b",
        "a\0b",
        "a\n",
        "\n",
        "a b",
        "a.b",
        "é",
        "\u0661",
        "~",
        "x" * 54,
        "x" * 65,
    ],
)
def test_a_name_that_could_leave_the_root_is_refused(partition: str) -> None:
    """Names that mean something to a file system, or that end in a line break, are refused before any path is built."""
    with pytest.raises(InvalidConfiguration, match=r"^partition: expected 1 to 53 of A-Z a-z 0-9 _ -, found"):
        config_of(partition=partition)


def test_the_longest_name_leaves_room_for_the_longest_suffix() -> None:
    """The partitions of the journal with the longest name have valid names."""
    assert len(config_of(partition="x" * 53).partition + "_checkpoint") == 64


@pytest.mark.parametrize("partition", [None, b"orders", 7, ["orders"]])
def test_a_name_that_is_no_text_is_refused(partition: object) -> None:
    """Bytes in particular are no name."""
    with pytest.raises(TypeError, match="partition: expected str, found"):
        config_of(partition=partition)


@pytest.mark.parametrize("name", ["a", "12345678", "a b", "~!@", " "])
def test_a_codec_whose_name_fits_the_disk_is_taken(name: str) -> None:
    """1 to 8 printable ASCII characters, whichever they are."""
    assert config_of(codec=codec_named(name)).codec.name == name


@pytest.mark.parametrize("name", ["", "123456789", "é", "a\0", "\0", "tab\t", "\x7f"])
def test_a_codec_whose_name_does_not_fit_the_disk_is_refused(name: str) -> None:
    """A name that would not come back from the disk as it was is refused before it is written."""
    with pytest.raises(InvalidConfiguration) as caught:
        config_of(codec=codec_named(name))
    assert (caught.value.what, caught.value.found) == ("codec name", repr(name))


@pytest.mark.parametrize("name", [None, b"bytes", 7])
def test_a_codec_whose_name_is_no_text_is_refused(name: object) -> None:
    """The name goes into a header as ASCII."""
    with pytest.raises(TypeError, match="codec name: expected str, found"):
        config_of(codec=codec_named(name))


@pytest.mark.parametrize("codec", [None, "msgpack"])
def test_what_is_no_codec_is_refused(codec: object) -> None:
    """A value of the wrong type is a `TypeError`, as for the other fields."""
    with pytest.raises(TypeError, match="codec: expected"):
        config_of(codec=codec)


@pytest.mark.parametrize("codec", [BytesCodec, JsonCodec, MsgpackCodec], ids=lambda codec: codec.__name__)
def test_a_class_of_codecs_is_no_codec(codec: Any) -> None:
    """It has all that a codec has, and each append would fail; the error says what to do."""
    expected = f"codec: expected a Codec, found the class {codec.__name__}: make one of it, as in {codec.__name__}()"
    with pytest.raises(TypeError, match=re.escape(expected)):
        config_of(codec=codec)


def test_a_configuration_pickles_and_is_copied() -> None:
    """It goes to processes that are spawned, also when its codec was used."""
    made = config_of(items_per_section=7)
    made.codec.encode("used")
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):  # noqa: S301 - our own bytes
        assert other.codec.decode(other.codec.encode({"id": 7})) == {"id": 7}
        assert replace(other, codec=made.codec) == made


@pytest.mark.parametrize("name", ["partition", "items_per_section", "codec", "compression", "max_open_blobs"])
def test_a_configuration_does_not_change(name: str) -> None:
    """What was checked stays as it was checked."""
    made = config_of()
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, getattr(made, name))


def test_a_context_does_not_change() -> None:
    """A journal keeps what it was given."""
    context = Context(MemoryStorage())
    with pytest.raises(FrozenInstanceError):
        context.label = "other"  # type: ignore[misc]


def test_a_context_counts_nothing_unless_told() -> None:
    """A storage is all that must be said."""
    context = Context(MemoryStorage())
    assert isinstance(context.metrics, NoMetrics)
    assert context.label == ""


def test_labels_are_joined_on_the_way_down() -> None:
    """Each level adds its name; the storage and the sink stay the same."""
    storage, metrics = MemoryStorage(), Counters()
    top = Context(storage, metrics)
    below = top.with_label("shop").with_label("orders")
    assert (top.label, below.label) == ("", "shop_orders")
    assert below.storage is storage
    assert below.metrics is metrics


def test_the_examples_of_the_documentation_run() -> None:
    """What the docstrings show is what happens."""
    outcome = doctest.testmod(config)
    assert outcome.attempted > 0
    assert outcome.failed == 0
