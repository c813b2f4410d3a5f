"""The records of an unsealed section in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.format.header import HEADER_LENGTH, Header, Kind
from posjournal_async.format.record import RECORD_HEAD_LENGTH, record_of
from posjournal_async.payloads import Run
from posjournal_async.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from posjournal_async.payloads import Payload

PAYLOADS = st.lists(st.tuples(st.binary(max_size=300), st.booleans()), min_size=1, max_size=50)
RUNS = st.lists(PAYLOADS, min_size=1, max_size=4)


def tail_of(first: int, salt: int) -> Tail:
    header = Header(Kind.DATA, 1, first // 1_000, 1_000, first, salt, "bytes")
    return Tail(header)


def run_of(payloads: Sequence[Payload]) -> Run:
    datas = [data for data, _ in payloads]
    compressed = [index for index, (_, is_compressed) in enumerate(payloads) if is_compressed]
    lengths = [RECORD_HEAD_LENGTH + len(data) for data in datas]
    return Run(datas, compressed, lengths, sum(lengths))


@given(runs=RUNS, first=st.integers(0, 2**64 - 300), salt=st.integers(0, 2**32 - 1))
def test_an_append_makes_the_record_of_the_format(runs: list[list[Payload]], first: int, salt: int) -> None:
    """However many are framed in one go: the bytes that the golden vectors hold, at the starts that it says."""
    tail = tail_of(first, salt)
    for run in runs:
        tail.append_run(run_of(run))
    tail.frame()
    items = [item for run in runs for item in run]
    records = [
        record_of(data, salt, position, compressed=is_compressed)
        for position, (data, is_compressed) in enumerate(items, first)
    ]
    assert tail.buffer == b"".join(records)
    assert tail.framed == tail.end == HEADER_LENGTH + len(tail.buffer)
    assert tail.size == first + len(items)
    for position, record in enumerate(records, first):
        start, stop = tail.bounds_of(position)
        assert tail.buffer[start - HEADER_LENGTH : stop - HEADER_LENGTH] == record


@given(runs=RUNS, first=st.integers(0, 2**64 - 300))
def test_it_does_not_matter_when_records_are_framed(runs: list[list[Payload]], first: int) -> None:
    """All at the end, after each run, or twice: the same bytes."""
    at_the_end, each, twice = tail_of(first, 7), tail_of(first, 7), tail_of(first, 7)
    for run in runs:
        for tail in (at_the_end, each, twice):
            assert tail.append_run(run_of(run)) == tail.size - 1
        each.frame()
        twice.frame()
        twice.frame()
    at_the_end.frame()
    assert at_the_end.buffer == each.buffer == twice.buffer
    assert at_the_end.starts == each.starts == twice.starts


@given(framed=PAYLOADS, pending=PAYLOADS)
def test_framing_that_was_interrupted_is_done_again(framed: list[Payload], pending: list[Payload]) -> None:
    """What it left in the buffer counts for nothing (C5)."""
    tail, undisturbed = tail_of(0, 7), tail_of(0, 7)
    for each in (tail, undisturbed):
        each.append_run(run_of(framed))
        each.frame()
        each.append_run(run_of(pending))
    tail.buffer += b"left behind"
    tail.frame()
    undisturbed.frame()
    assert tail.buffer == undisturbed.buffer


@given(landed=PAYLOADS, flying=PAYLOADS, buffered=PAYLOADS, pending=PAYLOADS)
def test_a_record_is_found_wherever_it_is_on_its_way(
    landed: list[Payload], flying: list[Payload], buffered: list[Payload], pending: list[Payload]
) -> None:
    """What is in flight, in the buffer or pending is given out whole; what is in the storage is not in memory."""
    tail = tail_of(5_000, 7)
    tail.append_run(run_of(landed))
    written = bytes(tail.take_off())
    assert tail.land() == len(written)
    tail.append_run(run_of(flying))
    tail.take_off()
    tail.append_run(run_of(buffered))
    tail.frame()
    last = tail.append_run(run_of(pending))

    for position, payload in enumerate(pending, last + 1 - len(pending)):
        assert tail.pending_payload(position) == payload
    for position in range(5_000, last + 1 - len(pending)):
        assert tail.pending_payload(position) is None
    everything = [*landed, *flying, *buffered, *pending]
    for position, (data, is_compressed) in enumerate(everything, 5_000):
        start, stop = tail.bounds_of(position)
        found = tail.in_memory(start, stop)
        if position < 5_000 + len(landed):
            assert found is None
        else:
            assert found == record_of(data, 7, position, compressed=is_compressed)
