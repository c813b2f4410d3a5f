"""The independent writer and reader: crash tests believe what they say, so they are tested too."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.format import writer
from tests.format.writer import Malformed, path_of, read_checkpoint, read_journal, write_journal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JOURNAL_ID = 0x0123_4567_89AB_CDEF
ITEMS = [f"item {number}".encode() for number in range(25)]


def files_of(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def write_slots(root: Path, *slots: bytes) -> None:
    path_of(root, "orders", "checkpoint").write_bytes(writer.checkpoint_blob(slots))


def slot_of(
    *,
    durable: int,
    sequence: int = 2,
    boundary: int = 0,
    reset: int | None = None,
    journal_id: int = JOURNAL_ID,
    version: int = 1,
) -> bytes:
    return writer.checkpoint_slot(
        sequence=sequence,
        journal_id=journal_id,
        items_per_section=10,
        durable=durable,
        boundary=boundary,
        reset=reset,
        version=version,
    )


def start_late(root: Path) -> None:
    """Let section 2 begin at 21: all of it checks out, but position 20 is nowhere."""
    header = writer.data_header(journal_id=JOURNAL_ID, section=2, items_per_section=10, first=21, salt=1)
    records = [writer.record(ITEMS[position], 1, position) for position in range(21, 25)]
    path_of(root, "orders", "data", 2).write_bytes(writer.data_blob(header, records))


@given(
    items=st.lists(st.binary(max_size=20), max_size=30),
    first=st.integers(0, 40) | st.integers(2**64 - 60, 2**64 - 40),
    items_per_section=st.integers(1, 12),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, items: list[bytes], first: int, items_per_section: int
) -> None:
    """Any journal is read back, at rest as well as after a crash."""
    root = tmp_path_factory.mktemp("root")
    write_journal(root, "orders", items=items, first=first, items_per_section=items_per_section)
    expected = list(enumerate(items, start=first))
    assert read_journal(root, "orders") == expected
    assert read_journal(root, "orders", after_crash=True) == expected


def test_files_are_named_by_section(tmp_path: Path) -> None:
    """The layout is that of `FileStorage`: three directories, files of 16 hex digits, no blob without items."""
    write_journal(tmp_path, "orders", items=[b"abc"] * 14, first=257)
    assert files_of(tmp_path) == {
        "orders_data/0000000000000019": 64 + 3 * 11,
        "orders_data/000000000000001a": 64 + 10 * 11,
        "orders_data/000000000000001b": 64 + 11,
        "orders_offsets/0000000000000019": 64 + 3 * 8,
        "orders_offsets/000000000000001a": 64 + 10 * 8,
        "orders_offsets/000000000000001b": 64 + 8,
        "orders_checkpoint/0000000000000000": 4096,
    }


def test_an_empty_journal_has_a_checkpoint_only(tmp_path: Path) -> None:
    """No section is made before it has an item."""
    write_journal(tmp_path, "orders", items=[], first=7)
    assert files_of(tmp_path) == {"orders_checkpoint/0000000000000000": 4096}
    assert read_journal(tmp_path, "orders") == []


def test_the_checkpoint_says_what_was_asked_for(tmp_path: Path) -> None:
    """Durable size, boundary, codec, id and salts are those of the call."""
    write_journal(tmp_path, "orders", items=ITEMS, durable=12, boundary=10, codec="json", journal_id=5, salts=[1, 2])
    assert read_checkpoint(tmp_path, "orders") == writer.Checkpoint(1, 5, 10, b"json\0\0\0\0", 12, 10, None)
    salts = [path_of(tmp_path, "orders", "data", section).read_bytes()[48:52] for section in (0, 1, 2)]
    assert salts == [salt.to_bytes(4, "little") for salt in (1, 2, writer.salt_of(2))]


@given(st.binary(max_size=300) | st.integers(0, 2**18 + 1).map(bytes))
def test_a_frame_is_decompressed_by_zstd(content: bytes) -> None:
    """The frames that the writer makes by hand are zstd frames."""
    assert zstd.decompress(writer.zstd_frame(content)) == content


def test_a_frame_may_claim_another_length() -> None:
    """The claim is in the frame's header, where a reader sees it before it allocates."""
    frame = writer.zstd_frame(b"small", claimed_length=2**33)
    assert zstd.get_frame_info(frame).decompressed_size == 2**33


def test_compressed_items_are_read_decompressed(tmp_path: Path) -> None:
    """Plain and compressed records may alternate."""
    items = [b"plain", zstd.compress(b"real" * 100), writer.zstd_frame(b"by hand")]
    write_journal(tmp_path, "orders", items=items, frames={1, 2})
    assert read_journal(tmp_path, "orders") == [(0, b"plain"), (1, b"real" * 100), (2, b"by hand")]


@pytest.mark.parametrize("frame", [b"", b"no frame", writer.zstd_frame(b"cut")[:-1], writer.zstd_frame(b"one") * 2])
def test_a_payload_that_is_not_one_frame_is_refused(tmp_path: Path, frame: bytes) -> None:
    """A compressed payload is exactly one zstd frame."""
    write_journal(tmp_path, "orders", items=[frame], frames={0})
    with pytest.raises((Malformed, zstd.ZstdError)):
        read_journal(tmp_path, "orders")


def test_the_higher_sequence_number_counts(tmp_path: Path) -> None:
    """Whichever slot it stands in; a slot that is not valid does not count."""
    write_journal(tmp_path, "orders", items=ITEMS)
    durables = []
    for slots in (
        [slot_of(sequence=8, durable=20), slot_of(sequence=9, durable=21)],
        [slot_of(sequence=9, durable=21), slot_of(sequence=8, durable=20)],
        [slot_of(sequence=8, durable=20), b"torn"],
    ):
        write_slots(tmp_path, *slots)
        checkpoint = read_checkpoint(tmp_path, "orders")
        assert checkpoint is not None
        durables.append(checkpoint.durable)
    assert durables == [21, 21, 20]


def changed(root: Path, part: writer.Part, section: int, change: Callable[[bytes], bytes]) -> None:
    path = path_of(root, "orders", part, section)
    path.write_bytes(change(path.read_bytes()))


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda blob: blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def append(behind: bytes) -> Callable[[bytes], bytes]:
    return lambda blob: blob + behind


def reseal(at: int, field: bytes) -> Callable[[bytes], bytes]:
    return lambda blob: writer.sealed_with_crc(blob[:at] + field + blob[at + len(field) : 60]) + blob[64:]


NOT_AT_REST: Sequence[tuple[str, Callable[[Path], object]]] = [
    ("bytes behind the last record", lambda root: changed(root, "data", 2, append(b"\0"))),
    ("one record too many in a sealed section", lambda root: changed(root, "data", 0, append(b"x" * 9))),
    ("an entry too many", lambda root: changed(root, "offsets", 2, append(bytes(8)))),
    ("an entry too few", lambda root: changed(root, "offsets", 2, lambda blob: blob[:-8])),
    ("an entry that is wrong", lambda root: changed(root, "offsets", 0, flip(72))),
    ("a bad header of the index", lambda root: changed(root, "offsets", 0, flip(50))),
    ("an index with another salt", lambda root: changed(root, "offsets", 0, reseal(48, b"salt"))),
    ("an index that is missing", lambda root: path_of(root, "orders", "offsets", 1).unlink()),
    ("a section without data", lambda root: path_of(root, "orders", "offsets", 3).touch()),
    ("a section behind a gap", lambda root: path_of(root, "orders", "data", 4).touch()),
    ("an interrupted creation", lambda root: path_of(root, "orders", "data", 3).touch()),
    ("a section below the boundary", lambda root: write_slots(root, slot_of(durable=25, boundary=10))),
    ("a reset in progress", lambda root: write_slots(root, slot_of(durable=25, reset=7))),
]

LOSS_OF_DURABLE = [
    ("a record that is damaged", lambda root: changed(root, "data", 1, flip(90))),
    ("a length that is damaged", lambda root: changed(root, "data", 1, flip(79))),
    ("a checksum that is damaged", lambda root: changed(root, "data", 1, flip(83))),
    ("a record that is cut", lambda root: changed(root, "data", 2, lambda blob: blob[:-1])),
    ("a header that is damaged", lambda root: changed(root, "data", 2, flip(30))),
    ("a header of another journal", lambda root: changed(root, "data", 2, reseal(16, b"8 bytes."))),
    ("a header of another section", lambda root: changed(root, "data", 2, reseal(24, bytes(8)))),
    ("a header of another codec", lambda root: changed(root, "data", 2, reseal(52, b"other\0\0\0"))),
    ("a header of another version", lambda root: changed(root, "data", 2, reseal(8, b"\2\0"))),
    ("a header with a later start", lambda root: changed(root, "data", 2, reseal(40, b"\x15" + bytes(7)))),
    ("a section that is missing", lambda root: path_of(root, "orders", "data", 1).unlink()),
    ("a durable size beyond the data", lambda root: write_slots(root, slot_of(durable=26))),
    ("a checkpoint of another journal", lambda root: write_slots(root, slot_of(durable=0, journal_id=1))),
    ("no valid checkpoint", lambda root: write_slots(root, b"torn")),
    ("a boundary above the durable size", lambda root: write_slots(root, slot_of(durable=5, boundary=10))),
    ("a sequence number of 0", lambda root: write_slots(root, slot_of(durable=25, sequence=0))),
    ("a slot of another version", lambda root: write_slots(root, slot_of(durable=25, version=2))),
    ("bytes behind the fields of a slot", lambda root: write_slots(root, slot_of(durable=25)[:-1] + b"x")),
    ("a second checkpoint", lambda root: path_of(root, "orders", "checkpoint", 1).touch()),
    ("a third slot", lambda root: write_slots(root, slot_of(durable=25), b"", b"")),
    ("a name of another kind", lambda root: (root / "orders_data" / "lock").touch()),
    ("a name in capitals", lambda root: (root / "orders_data" / "000000000000000A").touch()),
]


@pytest.mark.parametrize("spoil", [pytest.param(spoil, id=name) for name, spoil in [*NOT_AT_REST, *LOSS_OF_DURABLE]])
def test_what_a_closed_journal_does_not_leave_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """The strict reader finds every deviation from the format."""
    write_journal(tmp_path, "orders", items=ITEMS)
    spoil(tmp_path)
    with pytest.raises(Malformed):
        read_journal(tmp_path, "orders")


@pytest.mark.parametrize("spoil", [pytest.param(spoil, id=name) for name, spoil in LOSS_OF_DURABLE])
def test_the_loss_of_what_was_durable_is_refused_after_a_crash(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """A crash explains a torn end, not this."""
    write_journal(tmp_path, "orders", items=ITEMS)
    spoil(tmp_path)
    with pytest.raises(Malformed):
        read_journal(tmp_path, "orders", after_crash=True)


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        pytest.param(lambda root: changed(root, "data", 2, append(b"\0torn")), range(25), id="torn record"),
        pytest.param(lambda root: changed(root, "data", 2, append(bytes(4096))), range(25), id="zeros"),
        pytest.param(lambda root: changed(root, "data", 2, lambda blob: blob[:-1]), range(24), id="cut record"),
        pytest.param(lambda root: changed(root, "data", 2, lambda blob: blob[:10]), range(20), id="cut header"),
        pytest.param(lambda root: path_of(root, "orders", "data", 2).unlink(), range(20), id="no tail"),
        pytest.param(lambda root: path_of(root, "orders", "data", 1).unlink(), range(10), id="hole"),
        pytest.param(start_late, range(20), id="late start"),
        pytest.param(lambda root: path_of(root, "orders", "data", 3).touch(), range(25), id="empty creation"),
        pytest.param(lambda root: path_of(root, "orders", "offsets", 2).unlink(), range(25), id="no index"),
        pytest.param(lambda root: write_slots(root, slot_of(durable=5, reset=7)), range(0), id="reset"),
        pytest.param(
            lambda root: write_slots(root, slot_of(durable=12, boundary=10)), range(10, 25), id="half a prune"
        ),
    ],
)
def test_what_a_crash_may_leave_is_read_up_to_there(
    tmp_path: Path, spoil: Callable[[Path], object], left: range
) -> None:
    """The items that recovery has to find are those from the boundary to the first bytes that do not check out."""
    write_journal(tmp_path, "orders", items=ITEMS, durable=5)
    spoil(tmp_path)
    assert read_journal(tmp_path, "orders", after_crash=True) == [(position, ITEMS[position]) for position in left]


def test_zeros_are_no_item_whatever_the_salt(tmp_path: Path) -> None:
    """Where salt and position are alike, the checksum of nothing is zero; the length still is not."""
    write_journal(tmp_path, "orders", items=ITEMS[:5], salts=[5])
    changed(tmp_path, "data", 0, append(bytes(64)))
    assert read_journal(tmp_path, "orders", after_crash=True) == list(enumerate(ITEMS[:5]))


def test_nothing_at_all_is_a_journal_after_a_crash_only(tmp_path: Path) -> None:
    """A crash may come before the first checkpoint; a closed journal has one."""
    assert read_journal(tmp_path, "orders", after_crash=True) == []
    with pytest.raises(Malformed):
        read_journal(tmp_path, "orders")
