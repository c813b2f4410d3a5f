"""`format.record`: one item as bytes that prove themselves, and runs of them."""

import tracemalloc
from itertools import accumulate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from posjournal_async.format.record import (
    COMPRESSED,
    LENGTH_MASK,
    RECORD_HEAD_LENGTH,
    RecordFault,
    parse_record,
    parse_records,
    record_of,
    records_at,
    records_of,
)
from tests.format import writer

SALTS = st.integers(0, 2**32 - 1)
POSITIONS = st.integers(0, 2**64 - 2)
PAYLOADS = st.binary(max_size=300)
ITEMS = st.tuples(PAYLOADS, st.booleans())
RUNS = st.lists(ITEMS, max_size=12)
RUN_STARTS = st.integers(0, 2**64 - 20)

SALT = 0x5EED_5A17
LARGEST_CLAIM = LENGTH_MASK.to_bytes(4, "little")


def run_of(items: list[tuple[bytes, bool]], salt: int, position: int) -> bytes:
    records = (
        writer.record(payload, salt, at, compressed=compressed)
        for at, (payload, compressed) in enumerate(items, start=position)
    )
    return b"".join(records)


def ends_of(items: list[tuple[bytes, bool]]) -> list[int]:
    return list(accumulate(RECORD_HEAD_LENGTH + len(payload) for payload, _ in items))


# One record.


@given(payload=PAYLOADS, salt=SALTS, position=POSITIONS, compressed=st.booleans())
def test_a_record_is_encoded_as_the_format_says(payload: bytes, salt: int, position: int, *, compressed: bool) -> None:
    """Every record has the bytes that the independent writer gives it."""
    assert record_of(payload, salt, position, compressed=compressed) == writer.record(
        payload, salt, position, compressed=compressed
    )


@given(payload=PAYLOADS, salt=SALTS, position=POSITIONS, compressed=st.booleans())
def test_parsing_inverts_encoding(payload: bytes, salt: int, position: int, *, compressed: bool) -> None:
    """What was encoded is parsed as itself."""
    record = record_of(payload, salt, position, compressed=compressed)
    assert parse_record(record, salt, position) == (payload, compressed)


@pytest.mark.parametrize("position", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 2])
@pytest.mark.parametrize("salt", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff" * 255])
def test_positions_and_salts_at_their_edges_survive(payload: bytes, salt: int, position: int) -> None:
    """No combination of edges makes a record that is not read back."""
    assert parse_record(record_of(payload, salt, position), salt, position) == (payload, False)


@given(payload=PAYLOADS, salt=SALTS, position=POSITIONS, bit=st.integers(min_value=0), compressed=st.booleans())
def test_a_flipped_bit_is_refused(payload: bytes, salt: int, position: int, bit: int, *, compressed: bool) -> None:
    """No single bit of a record can change unnoticed, the one that says that it is compressed included."""
    record = bytearray(record_of(payload, salt, position, compressed=compressed))
    bit %= len(record) * 8
    record[bit // 8] ^= 1 << bit % 8
    assert parse_record(bytes(record), salt, position) is None
    assert parse_records(bytes(record), salt, position, 1).payloads == []


def test_every_flipped_bit_of_a_record_is_refused() -> None:
    """The same for all bits of one record, its word and its checksum included."""
    record = record_of(b"payload", SALT, 7)
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_record(bytes(flipped), SALT, 7) is None, bit
        assert parse_records(bytes(flipped), SALT, 7, 1).payloads == [], bit


@given(payload=PAYLOADS, salt=SALTS, position=POSITIONS, other=POSITIONS, compressed=st.booleans())
def test_a_record_is_refused_at_another_position(
    payload: bytes, salt: int, position: int, other: int, *, compressed: bool
) -> None:
    """An index that points to the wrong record of a blob cannot return another item."""
    assume(position % 2**32 != other % 2**32)
    record = record_of(payload, salt, position, compressed=compressed)
    assert parse_record(record, salt, other) is None
    assert parse_records(record, salt, other, 1).fault is RecordFault.BAD


@given(PAYLOADS, SALTS, st.integers(0, 2**64 - 2**32), st.integers(0, 31))
def test_a_record_is_refused_at_a_position_that_differs_in_one_bit(
    payload: bytes, salt: int, position: int, bit: int
) -> None:
    """The positions that are most alike are told apart."""
    record = record_of(payload, salt, position)
    assert parse_record(record, salt, position ^ 1 << bit) is None
    assert parse_record(record, salt, position + 2**32 - 1) is None


@given(PAYLOADS, SALTS, SALTS, POSITIONS)
def test_a_record_is_refused_in_a_blob_of_another_salt(payload: bytes, salt: int, other: int, position: int) -> None:
    """What a file system leaves of a deleted blob is not taken for a record of the next one."""
    assume(salt != other)
    assert parse_record(record_of(payload, salt, position), other, position) is None


@given(PAYLOADS, SALTS, POSITIONS, st.binary(min_size=1, max_size=9))
def test_a_record_of_another_length_is_refused(payload: bytes, salt: int, position: int, behind: bytes) -> None:
    """Exactly the record's bytes are the record: none fewer, none more."""
    record = record_of(payload, salt, position)
    assert parse_record(record + behind, salt, position) is None
    for length in range(len(record)):
        assert parse_record(record[:length], salt, position) is None, length


@given(st.integers(0, 4_096), SALTS, POSITIONS)
def test_zeros_are_never_a_record(length: int, salt: int, position: int) -> None:
    """Space that was allocated and not written holds no item, at any position of any blob."""
    zeros = bytes(length)
    found = parse_records(zeros, salt, position, 2**20)
    assert parse_record(zeros, salt, position) is None
    assert found.payloads == []
    if length >= RECORD_HEAD_LENGTH:
        assert found.fault is RecordFault.BAD


@pytest.mark.parametrize("position", [0, 1, SALT, 2**32 + SALT])
def test_zeros_are_never_a_record_where_their_checksum_is_good(position: int) -> None:
    """The checksum of nothing is zero where the low bits of the position are the salt; the length keeps zeros out."""
    salt = position % 2**32
    assert parse_record(bytes(8), salt, position) is None
    assert parse_records(bytes(8), salt, position, 1).fault is RecordFault.BAD


@given(payload=PAYLOADS, claimed=st.integers(0, 400), salt=SALTS, position=POSITIONS)
def test_a_length_that_is_not_the_payloads_is_refused(payload: bytes, claimed: int, salt: int, position: int) -> None:
    """A checksum that vouches for it does not make another length the record's."""
    assume(claimed != len(payload) + 1)
    seed = (salt ^ position ^ claimed) % 2**32
    record = claimed.to_bytes(4, "little") + writer.crc32c(payload, seed).to_bytes(4, "little") + payload
    assert parse_record(record, salt, position) is None


@given(st.binary(max_size=64), SALTS, POSITIONS)
def test_a_compressed_record_of_length_minus_one_is_bad(behind: bytes, salt: int, position: int) -> None:
    """A word with nothing but the compressed bit does not reach back into its own head."""
    run = COMPRESSED.to_bytes(4, "little") + behind.ljust(4, b"\0")
    found = parse_records(run, salt, position, 2)
    assert (found.payloads, found.fault) == ([], RecordFault.BAD)


# Runs of records.


@given(RUNS, SALTS, RUN_STARTS)
def test_records_made_in_one_go_are_those_of_the_format(
    items: list[tuple[bytes, bool]], salt: int, position: int
) -> None:
    """Many at once have the bytes that the independent writer gives each, compressed or not."""
    compressed = [index for index, (_, is_compressed) in enumerate(items) if is_compressed]
    found = records_of([payload for payload, _ in items], salt, position, compressed)
    assert found == run_of(items, salt, position)


@pytest.mark.parametrize("edge", [2**32, 2**33, 2**63, 2**64 - 1], ids=["2**32", "2**33", "2**63", "2**64 - 1"])
@given(items=st.lists(st.tuples(st.binary(max_size=9), st.booleans()), max_size=6), salt=SALTS)
def test_records_made_in_one_go_are_those_made_one_by_one(
    edge: int, items: list[tuple[bytes, bool]], salt: int
) -> None:
    """Also where the low half of the position begins anew between two of them, or they end with the last position."""
    payloads = [payload for payload, _ in items]
    compressed = [index for index, (_, is_compressed) in enumerate(items) if is_compressed]
    first = edge - len(items) - 1
    for position in range(first, min(edge + 1, 2**64 - 1 - len(items)) + 1):
        one_by_one = [
            record_of(payload, salt, at, compressed=is_compressed)
            for at, (payload, is_compressed) in enumerate(items, position)
        ]
        assert records_of(payloads, salt, position, compressed) == b"".join(one_by_one), position


@given(RUNS, SALTS, RUN_STARTS)
def test_a_run_is_parsed_whole(items: list[tuple[bytes, bool]], salt: int, position: int) -> None:
    """All records of a run are found, with where they end and which are compressed."""
    run = run_of(items, salt, position)
    found = parse_records(run, salt, position, len(items))
    assert found.payloads == [payload for payload, _ in items]
    assert found.compressed == [index for index, (_, compressed) in enumerate(items) if compressed]
    assert found.ends == ends_of(items)
    assert found.fault is None


@given(RUNS, SALTS, RUN_STARTS, st.integers(1, 5))
def test_the_end_of_the_run_is_no_fault(
    items: list[tuple[bytes, bool]], salt: int, position: int, missing: int
) -> None:
    """Bytes that end with a record leave nothing to complain about; what more records need at least is told."""
    run = run_of(items, salt, position)
    found = parse_records(run, salt, position, len(items) + missing)
    assert len(found.payloads) == len(items)
    assert found.fault is None
    assert found.needed == len(run) + RECORD_HEAD_LENGTH


@given(RUNS, SALTS, RUN_STARTS, st.integers(0, 12), st.binary(max_size=20))
def test_parsing_stops_at_most(
    items: list[tuple[bytes, bool]], salt: int, position: int, most: int, behind: bytes
) -> None:
    """No byte behind the last record asked for is looked at."""
    most = min(most, len(items))
    found = parse_records(run_of(items, salt, position) + behind, salt, position, most)
    assert found.payloads == [payload for payload, _ in items[:most]]
    assert found.fault is None


@given(RUNS, SALTS, RUN_STARTS)
def test_a_run_cut_anywhere_is_parsed_up_to_there(items: list[tuple[bytes, bool]], salt: int, position: int) -> None:
    """At every length the whole records are found, and `needed` is exactly where the next fact lies."""
    run = run_of(items, salt, position)
    ends = ends_of(items)
    for length in range(len(run)):
        found = parse_records(run[:length], salt, position, len(items))
        whole = sum(end <= length for end in ends)
        start = ends[whole - 1] if whole else 0
        has_head = length >= start + RECORD_HEAD_LENGTH
        assert found.ends == ends[:whole], length
        assert found.fault is (None if length == start else RecordFault.SHORT), length
        assert found.needed == (ends[whole] if has_head else start + RECORD_HEAD_LENGTH), length


@given(RUNS, SALTS, RUN_STARTS, st.data())
def test_a_run_that_arrives_in_pieces_is_parsed_whole(
    items: list[tuple[bytes, bool]], salt: int, position: int, data: st.DataObject
) -> None:
    """Wherever the pieces are split, going on behind the last whole record finds what one piece would have."""
    run = run_of(items, salt, position)
    splits = data.draw(st.lists(st.integers(0, len(run)), max_size=6), label="splits")
    payloads: list[bytes] = []
    compressed: list[int] = []
    start = 0
    for split in [*sorted(splits), len(run)]:
        done = len(payloads)
        found = parse_records(run[start:split], salt, position + done, len(items) - done)
        payloads += found.payloads
        compressed += [done + index for index in found.compressed]
        start += found.ends[-1] if found.ends else 0
    assert payloads == [payload for payload, _ in items]
    assert compressed == [index for index, (_, is_compressed) in enumerate(items) if is_compressed]
    assert start == len(run)


@given(RUNS, ITEMS, RUNS, SALTS, RUN_STARTS, st.integers(min_value=0))
def test_parsing_stops_at_a_damaged_payload(  # noqa: PLR0917 - what hypothesis draws
    before: list[tuple[bytes, bool]],
    damaged: tuple[bytes, bool],
    after: list[tuple[bytes, bool]],
    salt: int,
    position: int,
    bit: int,
) -> None:
    """The records before the damage are found, none behind it, although those are sound."""
    run = bytearray(run_of([*before, damaged, *after], salt, position))
    start = len(run_of(before, salt, position))
    bit %= (4 + len(damaged[0])) * 8
    run[start + 4 + bit // 8] ^= 1 << bit % 8
    found = parse_records(bytes(run), salt, position, len(before) + 1 + len(after))
    assert found.payloads == [payload for payload, _ in before]
    assert found.fault is RecordFault.BAD


@given(RUNS, SALTS, RUN_STARTS, st.integers(8, 100))
def test_zeros_behind_the_records_are_bad(
    items: list[tuple[bytes, bool]], salt: int, position: int, zeros: int
) -> None:
    """Space that was allocated and not written ends the records."""
    run = run_of(items, salt, position) + bytes(zeros)
    found = parse_records(run, salt, position, len(items) + 1)
    assert found.ends == ends_of(items)
    assert found.fault is RecordFault.BAD


@given(st.lists(ITEMS, min_size=2, max_size=12), SALTS, RUN_STARTS, st.data())
def test_a_record_left_out_ends_the_run(
    items: list[tuple[bytes, bool]], salt: int, position: int, data: st.DataObject
) -> None:
    """The records behind a gap are not moved up into it."""
    gap = data.draw(st.integers(0, len(items) - 2), label="gap")
    run = run_of(items[:gap], salt, position) + run_of(items[gap + 1 :], salt, position + gap + 1)
    found = parse_records(run, salt, position, len(items))
    assert found.payloads == [payload for payload, _ in items[:gap]]
    assert found.fault is RecordFault.BAD


@pytest.mark.parametrize("flag", [0, 0x80], ids=["plain", "compressed"])
def test_a_claim_of_two_gib_allocates_nothing(flag: int) -> None:
    """The longest length that a word can state is answered with what would be needed, not with memory."""
    run = LARGEST_CLAIM[:3] + bytes([LARGEST_CLAIM[3] | flag]) + bytes(100)
    tracemalloc.start()
    try:
        found = parse_records(run, SALT, 7, 2**20)
        alone = parse_record(run, SALT, 7)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert alone is None
    assert (found.payloads, found.fault) == ([], RecordFault.SHORT)
    assert found.needed == RECORD_HEAD_LENGTH + 2**31 - 2
    assert peak < 64 * 1024


def test_many_more_records_than_there_are_may_be_asked_for() -> None:
    """`most` costs nothing: a section with room for 2**63 records is parsed as quickly as its bytes."""
    found = parse_records(record_of(b"only", SALT, 0), SALT, 0, 2**63)
    assert found.payloads == [b"only"]


# What an index says of a run.


@given(st.lists(PAYLOADS, min_size=1, max_size=12), SALTS, RUN_STARTS, st.binary(max_size=20), st.integers(1, 12))
def test_records_that_an_index_leads_to_are_those_that_parsing_finds(
    payloads: list[bytes], salt: int, position: int, behind: bytes, most: int
) -> None:
    """Whatever lies behind them, and whether or not all of them are asked for."""
    items = [(payload, False) for payload in payloads]
    run = run_of(items, salt, position) + behind
    found = records_at(run, salt, position, [0, *ends_of(items)][: most + 1])
    assert found is not None
    assert (found.payloads, found.compressed) == (payloads[:most], [])
    assert found.ends == ends_of(items)[:most]


@given(
    items=st.lists(st.tuples(st.sampled_from([b"", b"tea", b"tea for two", bytes(8)]), st.booleans()), max_size=6),
    salt=SALTS,
    position=RUN_STARTS,
    data=st.data(),
)
def test_an_index_that_is_wrong_leads_to_nothing_else(
    items: list[tuple[bytes, bool]], salt: int, position: int, data: st.DataObject
) -> None:
    """Anything may stand there: what is found is what parsing finds, or nothing."""
    run = run_of(items, salt, position)
    true_edges = [0, *ends_of(items)]
    edges = data.draw(
        st.lists(st.sampled_from(true_edges) | st.integers(-20, len(run) + 20) | st.integers(-(2**64), 2**64))
        | st.lists(st.sampled_from(true_edges)).map(sorted)
        | st.just(true_edges)
    )
    damaged = bytearray(run)
    if run and data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(run) - 1))] ^= data.draw(st.integers(0, 255))
    found = records_at(bytes(damaged), salt, position, edges)
    if found is not None:
        parsed = parse_records(bytes(damaged), salt, position, len(edges) - 1)
        assert (found.payloads, found.compressed, found.ends) == (parsed.payloads, parsed.compressed, parsed.ends)


def test_records_end_where_they_end_and_not_where_an_index_says() -> None:
    """Two empty records have no byte by which the index could be told to be wrong, but their length."""
    run = records_of([b"", b""], SALT, 0)
    assert records_at(run, SALT, 0, [0, 0, 8]) is None


def test_an_index_that_counts_bytes_twice_allocates_nothing() -> None:
    """Payloads that overlap would be as many times the run as there are records."""
    run = record_of(bytes(2**20), SALT, 0)
    tracemalloc.start()
    try:
        assert records_at(run, SALT, 0, [0, len(run), 0, len(run), 0, len(run)]) is None
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
