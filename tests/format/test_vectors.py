"""The golden vectors and the worked example: the writer makes them, the library agrees, the document shows them."""

import re

import pytest

from posjournal_async.format.checkpoint_slot import SLOT_LENGTH, Slot, parse_slot
from posjournal_async.format.header import HEADER_LENGTH, Header, Kind, parse_header
from posjournal_async.format.record import parse_records, record_of
from tests.format import writer
from tests.vectors import make

JOURNAL_ID, SALT = make.JOURNAL_ID, make.SALT
DATA_HEADER = Header(Kind.DATA, JOURNAL_ID, 26, 10, 260, SALT, "bytes")
PARKED_HEADER = Header(Kind.DATA, JOURNAL_ID, 26, 10, 267, SALT, "bytes")
OFFSETS_HEADER = Header(Kind.OFFSETS, JOURNAL_ID, 26, 10, 260, SALT, "bytes")
FRESH = Slot(1, JOURNAL_ID, 10, "bytes", 0, 0)
RESET = Slot(9, JOURNAL_ID, 10, "bytes", 263, 260, 1_000)

# Everything in the document that is a line of a dump: at, bytes, field.
DUMP_LINE = re.compile(r"^ *(\d+)  ((?:[0-9a-f]{2} )*[0-9a-f]{2}) +\S.*$", re.MULTILINE)


def vector(name: str) -> bytes:
    return bytes.fromhex((make.FOLDER / f"{name}.hex").read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        pytest.param(bytes(32), 0x8A9136AA, id="32 zeros"),
        pytest.param(b"\xff" * 32, 0x62A8AB43, id="32 ones"),
        pytest.param(bytes(range(32)), 0x46DD794E, id="ascending"),
        pytest.param(bytes(reversed(range(32))), 0x113FDB5C, id="descending"),
        pytest.param(b"123456789", 0xE3069283, id="check"),
    ],
)
def test_the_writer_has_the_checksum_of_the_rfc(data: bytes, crc: int) -> None:
    """The writer's CRC-32C gives the numbers of RFC 3720 (B.4) and the usual check value, whole and in two parts."""
    assert writer.crc32c(data) == crc
    assert [writer.crc32c(data[at:], writer.crc32c(data[:at])) for at in range(len(data))] == [crc] * len(data)


@pytest.mark.parametrize("name", sorted(make.vectors()))
def test_making_a_vector_anew_gives_the_same_file(name: str) -> None:
    """A vector changes only when somebody means it."""
    kept = (make.FOLDER / f"{name}.hex").read_text(encoding="ascii")
    assert make.hex_of(make.vectors()[name]) == kept


def test_every_vector_is_made_and_described() -> None:
    """There is no file that is not made anew, and none that the README does not name."""
    files = {path.name for path in make.FOLDER.glob("*.hex")}
    readme = (make.FOLDER / "README.md").read_text(encoding="utf-8")
    assert files == {f"{name}.hex" for name in make.vectors()}
    assert files == set(re.findall(r"^\| `(.+?)` \|", readme, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("record-plain", record_of(b"hello, journal", SALT, 7)),
        ("record-empty", record_of(b"", SALT, 0)),
        ("record-last-position", record_of(b"\x00\xff", SALT, 2**64 - 2)),
        ("record-compressed", record_of(writer.zstd_frame(b"hello, journal"), SALT, 7, compressed=True)),
        ("data-header", DATA_HEADER.to_bytes()),
        ("data-header-parked", PARKED_HEADER.to_bytes()),
        ("offsets-header", OFFSETS_HEADER.to_bytes()),
        ("checkpoint-fresh", FRESH.to_bytes()),
        ("checkpoint-reset", RESET.to_bytes()),
    ],
)
def test_the_library_encodes_the_vector(name: str, encoded: bytes) -> None:
    """The library's bytes are the golden ones."""
    assert encoded == vector(name)


@pytest.mark.parametrize(
    ("name", "header"),
    [("data-header", DATA_HEADER), ("data-header-parked", PARKED_HEADER), ("offsets-header", OFFSETS_HEADER)],
)
def test_the_library_parses_the_header(name: str, header: Header) -> None:
    """The golden headers say what the README says of them."""
    assert parse_header(vector(name), HEADER_LENGTH) == header


@pytest.mark.parametrize(("name", "slot"), [("checkpoint-fresh", FRESH), ("checkpoint-reset", RESET)])
def test_the_library_parses_the_slot(name: str, slot: Slot) -> None:
    """The golden slots say what the README says of them."""
    assert parse_slot(vector(name)) == slot


def test_the_library_parses_the_checkpoint() -> None:
    """Both slots of the golden checkpoint are valid, and the first counts."""
    blob = vector("checkpoint-blob")
    first, second = (parse_slot(blob[at : at + SLOT_LENGTH]) for at in (0, SLOT_LENGTH))
    assert first == Slot(3, JOURNAL_ID, 10, "bytes", 263, 260)
    assert second == Slot(2, JOURNAL_ID, 10, "bytes", 263, 250)
    assert len(blob) == 2 * SLOT_LENGTH


def test_the_library_parses_the_data_and_the_index() -> None:
    """The golden data blob holds its three records, and they start where the golden offsets blob says."""
    data, offsets = vector("data-blob"), vector("offsets-blob")
    found = parse_records(data[HEADER_LENGTH:], SALT, 260, 10)
    assert parse_header(data, len(data)) == DATA_HEADER
    assert found.payloads == [b"first", b"", writer.zstd_frame(b"third" * 5)]
    assert found.compressed == [2]
    assert found.fault is None
    assert parse_header(offsets, len(offsets)) == OFFSETS_HEADER
    starts = [HEADER_LENGTH + start for start in (0, *found.ends[:-1])]
    assert offsets[HEADER_LENGTH:] == b"".join(start.to_bytes(8, "little") for start in starts)


def test_the_document_shows_what_the_writer_makes() -> None:
    """The worked example is the one that the writer makes."""
    document = make.DOCUMENT.read_text(encoding="utf-8")
    assert make.with_worked_example(document) == document


def test_the_bytes_of_the_document_are_read_by_the_library() -> None:
    """Somebody who types the worked example in by hand gets a journal that the library takes."""
    document = make.DOCUMENT.read_text(encoding="utf-8")
    dumps: list[bytes] = []
    for at, text in DUMP_LINE.findall(document):
        if at == "0":
            dumps.append(b"")
        assert len(dumps[-1]) == int(at)
        dumps[-1] += bytes.fromhex(text)
    data, offsets, slot = dumps
    assert parse_header(data, len(data)) == Header(Kind.DATA, JOURNAL_ID, 0, 3, 0, SALT, "bytes")
    assert parse_records(data[HEADER_LENGTH:], SALT, 0, 3).payloads == [b"tea", b"cake"]
    assert parse_header(offsets, len(offsets)) == Header(Kind.OFFSETS, JOURNAL_ID, 0, 3, 0, SALT, "bytes")
    assert offsets[HEADER_LENGTH:] == (64).to_bytes(8, "little") + (75).to_bytes(8, "little")
    assert parse_slot(slot) == Slot(2, JOURNAL_ID, 3, "bytes", 2, 0)
