"""`format.checkpoint_slot`: what recovery may rely on, as bytes."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, UnknownVersion, parse_slot
from tests.format import writer

U64 = st.integers(0, 2**64 - 1)
CODECS = st.text(string.ascii_letters + string.digits + string.punctuation + " ", min_size=1, max_size=8)
FIELDS_LENGTH = 72
USED_LENGTH = 76

slots = st.builds(
    Slot,
    sequence=st.integers(1, 2**63 - 1),
    journal_id=U64,
    items_per_section=st.integers(1, 2**63),
    codec=CODECS,
    durable=U64,
    boundary=U64,
    reset=st.none() | st.integers(0, 2**64 - 2),
)

SLOT = Slot(9, 0x0123_4567_89AB_CDEF, 10, "msgpack", 263, 260, 1_000)
BYTES = SLOT.to_bytes()


def written(slot: Slot, *, version: int = 1) -> bytes:
    return writer.checkpoint_slot(
        sequence=slot.sequence,
        journal_id=slot.journal_id,
        items_per_section=slot.items_per_section,
        codec=slot.codec,
        durable=slot.durable,
        boundary=slot.boundary,
        reset=slot.reset,
        version=version,
    )


@given(slots)
def test_a_slot_is_encoded_as_the_format_says(slot: Slot) -> None:
    """Every slot has the bytes that the independent writer gives it."""
    assert slot.to_bytes() == written(slot)


@given(slots)
def test_parsing_inverts_encoding(slot: Slot) -> None:
    """What was encoded is parsed as itself, from a whole slot."""
    assert len(slot.to_bytes()) == SLOT_LENGTH
    assert parse_slot(slot.to_bytes()) == slot


@pytest.mark.parametrize("edge", [0, 1, 2**32, 2**63, 2**64 - 2])
def test_fields_at_their_edges_survive(edge: int) -> None:
    """A reset to any size that a journal can start at is told from no reset."""
    slot = replace(SLOT, sequence=min(edge + 1, 2**63 - 1), durable=edge, boundary=edge, reset=edge)
    assert parse_slot(slot.to_bytes()) == slot


def test_no_reset_is_all_ones() -> None:
    """The target that says that no reset is in progress is the size that no journal can be reset to."""
    slot = replace(SLOT, reset=None)
    assert slot.to_bytes()[64:72] == b"\xff" * 8
    assert parse_slot(slot.to_bytes()) == slot


def test_a_flipped_bit_is_refused() -> None:
    """No single bit of the fields or their checksum can change unnoticed, nor pass for another version."""
    for bit in range(USED_LENGTH * 8):
        flipped = bytearray(BYTES)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_slot(bytes(flipped)) is None, bit


def test_a_torn_slot_is_refused() -> None:
    """A crash that leaves a proper prefix, with nothing or zeros behind it, leaves no checkpoint."""
    assert BYTES[USED_LENGTH - 1] != 0
    for kept in range(USED_LENGTH):
        assert parse_slot(BYTES[:kept]) is None, kept
        assert parse_slot(BYTES[:kept].ljust(SLOT_LENGTH, b"\0")) is None, kept


@given(slots, slots, st.integers(0, USED_LENGTH))
def test_a_slot_torn_over_another_is_one_of_them_or_none(old: Slot, new: Slot, arrived: int) -> None:
    """A slot half written over an older one never mixes the two."""
    torn = new.to_bytes()[:arrived] + old.to_bytes()[arrived:]
    whole = {old.to_bytes(): old, new.to_bytes(): new}
    assert parse_slot(torn) == whole.get(torn)


@pytest.mark.parametrize("length", [USED_LENGTH, USED_LENGTH + 1, SLOT_LENGTH])
def test_a_slot_counts_without_the_zeros_behind_it(length: int) -> None:
    """The rest of a slot need not have arrived."""
    assert parse_slot(BYTES[:length]) == SLOT


@pytest.mark.parametrize("length", [0, USED_LENGTH, SLOT_LENGTH])
def test_zeros_are_no_checkpoint(length: int) -> None:
    """A slot that was allocated and not written is empty."""
    assert parse_slot(bytes(length)) is None


@pytest.mark.parametrize("version", [0, 2, 255, 256, 2**16 - 1])
def test_another_version_is_named(version: int) -> None:
    """A good checksum over another version number is that version, not damage."""
    assert parse_slot(written(SLOT, version=version)) == UnknownVersion(version)


def test_another_version_without_a_good_checksum_is_refused() -> None:
    """A version number is believed only when the checksum vouches for it."""
    slot = bytearray(written(SLOT, version=2))
    slot[FIELDS_LENGTH] ^= 1
    assert parse_slot(bytes(slot)) is None


@pytest.mark.parametrize(
    ("at", "field"),
    [
        pytest.param(0, b"PJRNDATA", id="magic of a data blob"),
        pytest.param(32, bytes(8), id="no items per section"),
        pytest.param(40, b"\xff" * 8, id="codec that is not ASCII"),
    ],
)
def test_fields_that_no_journal_has_are_refused(at: int, field: bytes) -> None:
    """A good checksum does not make a checkpoint of what cannot be one."""
    fields = BYTES[:at] + field + BYTES[at + len(field) : FIELDS_LENGTH]
    assert parse_slot(writer.sealed_with_crc(fields).ljust(SLOT_LENGTH, b"\0")) is None


@given(st.binary(max_size=2 * USED_LENGTH))
def test_no_bytes_make_the_parser_raise(slot: bytes) -> None:
    """Random bytes are never a checkpoint."""
    assert parse_slot(slot) is None
