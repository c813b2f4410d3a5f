"""`format.header`: the 64 bytes that every data and offsets blob begins with."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.format.header import BadHeader, Header, HeaderFault, Kind, parse_header
from tests.format import writer

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
CODECS = st.text(PRINTABLE, min_size=1, max_size=8)

headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    journal_id=U64,
    section=U64,
    items_per_section=st.integers(1, 2**63),
    first=U64,
    salt=U32,
    codec=CODECS,
)

# Its last byte is not zero, so that it shows when that byte is cut off or cleared.
HEADER = Header(Kind.DATA, 0x0123_4567_89AB_CDEF, 26, 10, 260, 0x5EED_5A17, "msgpack")
HEAD = HEADER.to_bytes()
LONG = 1_000_000

INTERRUPTED = BadHeader(HeaderFault.INTERRUPTED)
DAMAGED = BadHeader(HeaderFault.DAMAGED)

each_kind = pytest.mark.parametrize("kind", Kind)


def written(header: Header, *, version: int = 1) -> bytes:
    header_of = writer.data_header if header.kind is Kind.DATA else writer.offsets_header
    return header_of(
        journal_id=header.journal_id,
        section=header.section,
        items_per_section=header.items_per_section,
        first=header.first,
        salt=header.salt,
        codec=header.codec,
        version=version,
    )


def flipped(head: bytes, bit: int) -> bytes:
    changed = bytearray(head)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def resealed(fields: bytes) -> bytes:
    return writer.sealed_with_crc(fields[:60])


@given(headers)
def test_a_header_is_encoded_as_the_format_says(header: Header) -> None:
    """Every header has the bytes that the independent writer gives it."""
    assert header.to_bytes() == written(header)


@given(headers, st.binary(max_size=100))
def test_parsing_inverts_encoding(header: Header, behind: bytes) -> None:
    """What was encoded is parsed as itself, whatever stands behind it in the blob."""
    start = header.to_bytes() + behind
    assert parse_header(start, len(start)) == header
    assert parse_header(start[:64], len(start)) == header


@pytest.mark.parametrize("edge", [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_fields_at_their_edges_survive(edge: int) -> None:
    """The 64-bit fields hold all 64-bit numbers."""
    header = replace(HEADER, journal_id=edge, section=edge, first=edge, items_per_section=max(edge, 1))
    assert parse_header(header.to_bytes(), 64) == header


@pytest.mark.parametrize("length", [64, 65, LONG])
def test_a_flipped_bit_is_refused(length: int) -> None:
    """No single bit of a header can change unnoticed, nor pass for another version."""
    found = [parse_header(flipped(HEAD, bit), length) for bit in range(64 * 8)]
    assert [bit for bit, fault in enumerate(found) if fault not in {DAMAGED, INTERRUPTED}] == []


@pytest.mark.parametrize("length", [65, LONG])
def test_a_flipped_bit_before_records_is_damage(length: int) -> None:
    """A header that has something behind it was whole once."""
    found = [parse_header(flipped(HEAD, bit), length) for bit in range(64 * 8)]
    assert [bit for bit, fault in enumerate(found) if fault != DAMAGED] == []


def test_damage_to_a_header_that_arrived_as_a_whole_is_no_interruption() -> None:
    """A header that is there up to its last byte is more than an interrupted creation leaves."""
    found = [parse_header(flipped(HEAD, bit), 64) for bit in range(60 * 8)]
    assert [bit for bit, fault in enumerate(found) if fault != DAMAGED] == []


@each_kind
def test_a_prefix_is_an_interrupted_creation(kind: Kind) -> None:
    """A crash may leave any proper prefix of the header and nothing behind it."""
    head = replace(HEADER, kind=kind).to_bytes()
    found = [parse_header(head[:kept], kept) for kept in range(64)]
    assert [kept for kept, fault in enumerate(found) if fault != INTERRUPTED] == []


@each_kind
def test_a_prefix_before_zeros_is_an_interrupted_creation(kind: Kind) -> None:
    """A crash may leave any proper prefix of the header in space that was allocated and not written."""
    head = replace(HEADER, kind=kind).to_bytes()
    assert head[-1] != 0
    for kept in range(64):
        for length in range(kept, 65):
            assert parse_header(head[:kept].ljust(length, b"\0"), length) == INTERRUPTED


@given(headers, st.integers(0, 63), st.integers(0, 64))
def test_any_header_may_be_interrupted_anywhere(header: Header, kept: int, zeros: int) -> None:
    """A blob of at most 64 bytes that begins like a header is whole or interrupted, whatever its fields are."""
    begun = (header.to_bytes()[:kept] + bytes(zeros))[:64]
    found = parse_header(begun, len(begun))
    assert found == (header if begun == header.to_bytes() else INTERRUPTED)


def test_a_prefix_with_something_behind_the_header_is_damage() -> None:
    """The header is durable before a record is written, so a longer blob without one was damaged, zeros too."""
    for kept in range(64):
        start = HEAD[:kept].ljust(64, b"\0")
        assert parse_header(start, 65) == DAMAGED
        assert parse_header(start + bytes(64), 128) == DAMAGED


@pytest.mark.parametrize("start", [b"X", b"PJRNX", b"PJRNDATX", b"\0PJRNDATA", b"pjrndata", b"PJRNCKPT\1\0"])
def test_a_short_blob_that_begins_like_no_header_is_damage(start: bytes) -> None:
    """Only what a creation writes is taken for an interrupted one."""
    assert parse_header(start, len(start)) == DAMAGED
    assert parse_header(start.ljust(64, b"\0"), 64) == DAMAGED


@each_kind
@pytest.mark.parametrize("version", [0, 2, 255, 256, 2**16 - 1])
def test_another_version_is_named(kind: Kind, version: int) -> None:
    """A good checksum over another version number is that version, not damage."""
    head = written(replace(HEADER, kind=kind), version=version)
    assert parse_header(head, LONG) == BadHeader(HeaderFault.VERSION, version)


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_without_a_good_checksum_is_damage(version: int) -> None:
    """A version number is believed only when the checksum vouches for it."""
    head = bytearray(written(HEADER, version=version))
    head[60] ^= 1
    assert parse_header(bytes(head), LONG) == DAMAGED


def test_another_magic_with_a_good_checksum_is_damage() -> None:
    """A blob of something else is not taken for one of a journal."""
    assert parse_header(resealed(b"PJRNCKPT" + HEAD[8:]), LONG) == DAMAGED


def test_a_codec_that_is_not_ascii_is_damage() -> None:
    """A name that no codec can have is refused, and raises no decoding error."""
    assert parse_header(resealed(HEAD[:52] + b"\xff" * 8), LONG) == DAMAGED


@given(st.binary(max_size=80), st.integers(0, 200))
def test_no_bytes_make_the_parser_raise(start: bytes, behind: int) -> None:
    """Random bytes are never a header, and always have a fault."""
    found = parse_header(start, len(start) + behind if len(start) >= 64 else len(start))
    assert isinstance(found, BadHeader)
    assert found.fault in {HeaderFault.INTERRUPTED, HeaderFault.DAMAGED}
