"""The records of an unsealed section in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.format.header import HEADER_LENGTH, Header, Kind
from posjournal_async.format.record import record_of
from posjournal_async.tail import Tail

PAYLOADS = st.lists(st.tuples(st.binary(max_size=300), st.booleans()), min_size=1, max_size=50)


def tail_of(first: int, salt: int) -> Tail:
    header = Header(Kind.DATA, 1, first // 1_000, 1_000, first, salt, "bytes")
    return Tail(header)


@given(before=PAYLOADS, run=PAYLOADS, first=st.integers(0, 2**64 - 200), salt=st.integers(0, 2**32 - 1))
def test_a_run_is_the_same_bytes_as_its_items_one_by_one(
    before: list[tuple[bytes, bool]], run: list[tuple[bytes, bool]], first: int, salt: int
) -> None:
    """The quick way to append many leaves the same records, offsets and positions as the straight one."""
    at_once, one_by_one = tail_of(first, salt), tail_of(first, salt)
    for tail in (at_once, one_by_one):
        for data, is_compressed in before:
            tail.append(data, is_compressed)

    last = at_once.append_run(run)
    positions = [one_by_one.append(data, is_compressed) for data, is_compressed in run]

    assert last == positions[-1]
    assert at_once.buffer == one_by_one.buffer
    assert at_once.starts == one_by_one.starts
    assert at_once.end == one_by_one.end
    assert at_once.size == one_by_one.size


@given(run=PAYLOADS, first=st.integers(0, 2**64 - 200), salt=st.integers(0, 2**32 - 1))
def test_an_append_makes_the_record_of_the_format(run: list[tuple[bytes, bool]], first: int, salt: int) -> None:
    """The quick way to frame an item leaves the bytes that the golden vectors hold."""
    tail = tail_of(first, salt)
    for data, is_compressed in run:
        tail.append(data, is_compressed)
    records = [
        record_of(data, salt, position, compressed=is_compressed)
        for position, (data, is_compressed) in enumerate(run, first)
    ]
    assert tail.buffer == b"".join(records)


@given(landed=PAYLOADS, flying=PAYLOADS, buffered=PAYLOADS)
def test_a_record_is_found_wherever_it_is_on_its_way(
    landed: list[tuple[bytes, bool]], flying: list[tuple[bytes, bool]], buffered: list[tuple[bytes, bool]]
) -> None:
    """What is in flight or in the buffer is given out whole; what is in the storage is not in memory."""
    tail = tail_of(5_000, 7)
    tail.append_run(landed)
    written = bytes(tail.take_off())
    assert tail.land() == len(written)
    tail.append_run(flying)
    tail.take_off()
    last = tail.append_run(buffered)

    everything = written + bytes(tail.flight) + bytes(tail.buffer)
    for position in range(5_000, last + 1):
        start, stop = tail.bounds_of(position)
        found = tail.in_memory(start, stop)
        if position < 5_000 + len(landed):
            assert found is None
        else:
            assert found == everything[start - HEADER_LENGTH : stop - HEADER_LENGTH]
