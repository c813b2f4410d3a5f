"""What verifying a journal finds: held against opening it, in each state, and after each kind of damage."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from posjournal_async import BytesCodec, Config, Context, Corruption, FileStorage, Journal
from posjournal_async.inspection.findings import Severity
from posjournal_async.inspection.verification import Verification
from posjournal_async.payloads import Payloads
from posjournal_async.storage.readonly import ReadOnlyFileStorage
from tests.damage.files import CHECKPOINT, slots_in
from tests.damage.kinds import Kind, damages_of
from tests.damage.states import crashed_states, named_states
from tests.effort import IS_LONG, effort
from tests.format import writer
from tests.inspection.looking import findings_in, opened
from tests.journals import files_below, limits_of

if TYPE_CHECKING:
    from pathlib import Path

    from posjournal_async.inspection.findings import Finding
    from tests.damage.kinds import Damage
    from tests.damage.states import Key, State, Tree
    from tests.inspection.looking import Opening

NAMED = named_states()
CRASHED = crashed_states()

# How many damages of a kind are tried in each state; all of them by `python3 run.py long`.
MOST = effort(2, 10**9)
MOST_AFTER_A_CRASH = effort(1, 40)
CRASHED_STEP = effort(24, 1)

IPS = 3


def corrupt(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity is Severity.CORRUPT]


def lost(found: list[Finding]) -> list[int]:
    """The positions that the findings say have no sound item."""
    return [
        position
        for finding in found
        if finding.positions and finding.position is not None
        for position in range(finding.position, finding.position + finding.positions)
    ]


# Beside opening.


async def judged(state: State, damage: Damage, sound: Opening) -> bool:
    """Hold what is found after a damage against what opening shows; return whether anything was."""
    tree = damage.make()
    found, _ = await findings_in(tree)
    shown = await opened(tree, state.config)
    if isinstance(shown, Corruption):
        assert corrupt(found), f"opening refuses it: {shown}"
        return True
    assert not shown.unreadable or corrupt(found), "an item cannot be read"
    assert set(lost(found)) <= set(shown.unreadable), "an item that can be read is said to be lost"
    if damage.kind in {Kind.FLIP, Kind.CUT, Kind.DELETE}:
        assert lost(found) == shown.unreadable
    if not found:
        assert shown.report.clean, "opening has mended something"
        assert not shown.unreadable
        if (limits_of(shown.bounds), shown.items) != (limits_of(sound.bounds), sound.items):
            assert is_an_earlier_journal(state, damage, shown, sound), f"expected {sound.bounds}, found {shown.bounds}"
    return bool(found)


def is_an_earlier_journal(state: State, damage: Damage, shown: Opening, sound: Opening) -> bool:
    """Whether nothing tells this from the journal as it was, or as a crash could have left it.

    Fewer items, and those that are gone lay above the durable size; an older copy of everything that matters; or of the
    checkpoint a slot less.
    """
    slots = slots_in(state.tree)
    low = slots[0].durable if slots else 0
    is_prefix = shown.bounds.start == sound.bounds.start and low <= shown.bounds.stop <= sound.bounds.stop
    return is_prefix or damage.kind is Kind.OLDER or CHECKPOINT in damage.keys


async def try_damages(state: State, most: int) -> int:
    sound = await opened(state.tree, state.config)
    assert not isinstance(sound, Corruption)
    rng = random.Random(state.name)
    noticed = 0
    for kind in Kind:
        damages = list(damages_of(state, kind, rng, each_byte=False))
        for damage in rng.sample(damages, min(most, len(damages))):
            try:
                noticed += await judged(state, damage, sound)
            except BaseException as error:
                error.add_note(f"state: {state.name}\ndamage: {damage.kind.value}, {damage.keys}, {damage.what}")
                raise
    return noticed


@pytest.mark.parametrize("state", NAMED, ids=[state.name for state in NAMED])
async def test_damage_is_found(state: State) -> None:
    """Whatever opening refuses or mends, and whatever item cannot be read, verify has said before."""
    assert await try_damages(state, MOST)


@pytest.mark.parametrize("state", CRASHED[::CRASHED_STEP], ids=[state.name for state in CRASHED[::CRASHED_STEP]])
async def test_damage_after_a_crash_is_found(state: State) -> None:
    """What a crash has left hides nothing that it did not leave."""
    await try_damages(state, MOST_AFTER_A_CRASH)


async def test_in_a_journal_without_damage_none_is_found() -> None:
    """In each state that a journal or a crash leaves: no corruption, and a finding exactly where opening has work."""
    for state in [*NAMED, *CRASHED[:: effort(8, 1)]]:
        found, verification = await findings_in(state.tree, is_deep=True)
        shown = await opened(state.tree, state.config)
        assert not isinstance(shown, Corruption)
        assert not corrupt(found), state.name
        # Before the first checkpoint is whole there is no journal: opening makes one, and has nothing to say.
        is_first_torn = not slots_in(state.tree) and [finding.what for finding in found] == ["slot"]
        assert bool(found) == (not shown.report.clean) or is_first_torn, f"{state.name}: {found}"
        assert verification.tally.unsettled == 0
        if not found:
            assert verification.tally.items == verification.tally.decoded == len(shown.items), state.name


# Behind damage.


def laid_out(root: Path, count: int, *, items_per_section: int = IPS, durable: int | None = None) -> Tree:
    """Lay out a journal of items that are a bit different in length; closed, if all of it is durable."""
    items = [b"item %d" % position + b"." * (position % 5) for position in range(count)]
    writer.write_journal(root, "j", items=items, items_per_section=items_per_section, durable=durable)
    return tree_below(root)


def tree_below(root: Path) -> Tree:
    return {(path.parent.name, path.name): path.read_bytes() for path in root.glob("*/*")}


async def grown(root: Path, count: int, length: int) -> Tree:
    """Make a journal of one section of large items."""
    config = Config(partition="j", items_per_section=count, codec=BytesCodec())
    async with await Journal.init(Context(FileStorage(root)), config) as journal:
        await journal.append_many([b"item %d".ljust(length, b"-") % position for position in range(count)])
    return tree_below(root)


def data_of(section: int) -> Key:
    return "j_data", f"{section:016x}"


def index_of(section: int) -> Key:
    return "j_offsets", f"{section:016x}"


def start_of(tree: Tree, section: int, number: int) -> int:
    """The byte at which a record of a section starts."""
    at = writer.HEADER_LENGTH + 8 * number
    return int.from_bytes(tree[index_of(section)][at : at + 8], "little")


def put(tree: Tree, key: Key, at: int, content: bytes) -> None:
    tree[key] = tree[key][:at] + content + tree[key][at + len(content) :]


async def test_the_index_leads_on_behind_a_length_that_is_damaged(tmp_path: Path) -> None:
    """One record is lost, and those behind it are checked."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    at = start_of(tree, 0, 4)
    put(tree, data_of(0), at, b"\x00\x01\x00\x00")
    found, verification = await findings_in(tree)
    assert lost(found) == [4]
    assert [(finding.section, finding.offset) for finding in found] == [(0, at)]
    assert verification.tally.items == 19


async def test_a_run_of_damaged_records_is_one_finding(tmp_path: Path) -> None:
    """It says where it begins, how many positions it has, and where it goes on."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    start, stop = start_of(tree, 0, 3), start_of(tree, 0, 7)
    put(tree, data_of(0), start, bytes(stop - start))
    found, _ = await findings_in(tree)
    assert lost(found) == [3, 4, 5, 6]
    [finding] = found
    assert finding.offset == start
    assert finding.found == f"zeros; the next that checks out is position 7 at byte {stop}"


async def test_without_an_index_a_damaged_length_hides_the_rest_of_the_section(tmp_path: Path) -> None:
    """It is said how many positions nothing leads to; other sections are checked."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    put(tree, data_of(0), start_of(tree, 0, 4), b"\x00\x01\x00\x00")
    del tree[index_of(0)]
    found, verification = await findings_in(tree)
    assert lost(found) == list(range(4, 10))
    assert [finding.found.partition("; ")[2] for finding in corrupt(found) if finding.positions] == [
        "nothing leads to the 5 positions behind it"
    ]
    assert verification.tally.items == 14


async def test_without_an_index_a_damaged_payload_leads_on_by_its_length(tmp_path: Path) -> None:
    """The record behind it proves itself where the damaged one ends."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    put(tree, data_of(0), start_of(tree, 0, 4) + 8, b"?")
    del tree[index_of(1)]
    put(tree, index_of(0), 0, b"?")
    found, _ = await findings_in(tree)
    assert lost(found) == [4]
    assert [finding.what for finding in found if finding.severity is Severity.STALE] == ["index", "index"]


async def test_an_index_that_leads_elsewhere_is_stale_and_loses_nothing(tmp_path: Path) -> None:
    """Its first wrong entry is named."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    put(tree, index_of(0), writer.HEADER_LENGTH + 8 * 6, b"\0")
    [finding], verification = await findings_in(tree)
    assert (finding.severity, finding.partition, finding.section, finding.offset, finding.position) == (
        Severity.STALE,
        "j_offsets",
        0,
        writer.HEADER_LENGTH + 8 * 6,
        6,
    )
    assert verification.tally.items == 20


async def test_bytes_behind_a_sealed_section_are_found(tmp_path: Path) -> None:
    """A crash leaves none there, though reading gets over them."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    tree[data_of(0)] += b"more"
    [finding], _ = await findings_in(tree)
    assert (finding.severity, finding.found, finding.positions) == (Severity.CORRUPT, "4 bytes more", 0)


async def test_bytes_before_an_interrupted_creation_are_torn(tmp_path: Path) -> None:
    """The leftover of a creation goes when the journal is opened, and the section before it is mended as the last."""
    tree = laid_out(tmp_path, 20, items_per_section=10)
    tree[data_of(1)] += b"more"
    tree[data_of(2)] = b""
    found, _ = await findings_in(tree)
    assert [(finding.severity, finding.section) for finding in found] == [(Severity.TORN, 1), (Severity.TORN, 2)]


async def test_bytes_before_a_gap_are_torn(tmp_path: Path) -> None:
    """What lies behind a gap goes when the journal is opened, and the section before it is mended as the last."""
    tree = laid_out(tmp_path, 30, items_per_section=10, durable=10)
    tree[data_of(0)] += b"more"
    del tree[data_of(1)], tree[index_of(1)]
    found, _ = await findings_in(tree)
    assert [(finding.severity, finding.section, finding.what) for finding in found] == [
        (Severity.TORN, 0, "record"),
        (Severity.TORN, 2, "data blob behind a gap"),
        (Severity.STALE, 2, "index behind a gap"),
    ]


async def test_a_reset_that_is_done_is_found_in_the_other_slot(tmp_path: Path) -> None:
    """Opening writes over it."""
    tree = laid_out(tmp_path, 4)
    reset, done = (
        writer.checkpoint_slot(
            sequence=sequence,
            journal_id=0x0123_4567_89AB_CDEF,
            items_per_section=IPS,
            durable=4,
            boundary=0,
            reset=target,
        )
        for sequence, target in ((1, 0), (2, None))
    )
    tree[CHECKPOINT] = reset + done
    found, _ = await findings_in(tree)
    assert [(finding.severity, finding.what, finding.offset) for finding in found] == [(Severity.TORN, "slot", 0)]


async def test_blobs_that_are_missing_are_one_finding(tmp_path: Path) -> None:
    """It says how many positions were in them."""
    tree = laid_out(tmp_path, 20)
    for section in (2, 3, 6):
        del tree[data_of(section)]
    found, _ = await findings_in(tree)
    assert lost(found) == [6, 7, 8, 9, 10, 11, 18, 19]
    assert [finding.found for finding in corrupt(found)] == ["none, up to section 3", "none"]


@pytest.mark.parametrize("durable", [0, 10, 25])
@pytest.mark.parametrize("is_indexed", [False, True])
async def test_a_first_section_that_is_missing_is_damage_whatever_is_durable(
    tmp_path: Path, durable: int, *, is_indexed: bool
) -> None:
    """No crash leaves the others without it, and opening refuses them: none is said to go."""
    tree = laid_out(tmp_path, 30, items_per_section=10, durable=durable)
    del tree[data_of(0)]
    if not is_indexed:
        del tree[index_of(0)]
    found, _ = await findings_in(tree)
    assert lost(found) == list(range(10))
    assert [(finding.what, finding.found) for finding in corrupt(found)] == [("data blob", "none")]
    assert not [finding for finding in found if finding.severity is Severity.TORN]


async def test_data_of_another_journal_below_the_boundary_is_damage(tmp_path: Path) -> None:
    """The checkpoint is one of before a reset to less: opening refuses it, and removes nothing."""
    tree = laid_out(tmp_path, 25, items_per_section=10)
    slot = writer.checkpoint_slot(sequence=9, journal_id=1, items_per_section=10, durable=30, boundary=30)
    found, _ = await findings_in({**tree, CHECKPOINT: writer.checkpoint_blob([slot])})
    assert [(finding.severity, finding.found) for finding in found] == [(Severity.CORRUPT, "one of another journal")]


async def test_a_name_that_is_no_section_is_found(tmp_path: Path) -> None:
    """Opening refuses it."""
    tree = laid_out(tmp_path, 4)
    tree["j_data", "00ff"] = b""
    found, _ = await findings_in(tree)
    assert [(finding.what, finding.found) for finding in found] == [("blob name", "00ff")]
    assert isinstance(await opened(tree, NAMED[0].config), Corruption)


# Large things.


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_record_larger_than_a_piece_is_checked(tmp_path: Path, *, is_damaged: bool) -> None:
    """Of 300 KB, which is parsed at once, and of 1.5 MB, which is not."""
    for number, length in enumerate((300_000, 1_500_000)):
        tree = await grown(tmp_path / str(number), 5, length)
        if is_damaged:
            put(tree, data_of(0), start_of(tree, 0, 1) + length, b"?")
        found, verification = await findings_in(tree, is_deep=True)
        assert lost(found) == ([1] if is_damaged else [])
        assert verification.tally.decoded == 5 - is_damaged


async def test_a_damaged_length_is_not_allocated(tmp_path: Path) -> None:
    """Memory stays small whatever a record claims, and whatever the section holds."""
    tree = await grown(tmp_path, 24, 1_000_000)
    put(tree, data_of(0), start_of(tree, 0, 2), (20_000_000).to_bytes(4, "little"))
    (tmp_path / data_of(0)[0] / data_of(0)[1]).write_bytes(tree[data_of(0)])
    found: list[Finding] = []
    tracemalloc.start()
    try:
        await Verification(ReadOnlyFileStorage(tmp_path), "j", found.append).run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lost(found) == [2]
    assert peak < 6_000_000


async def test_findings_come_as_they_are_found(tmp_path: Path) -> None:
    """The first one is told before the last section is read."""
    tree = laid_out(tmp_path, 9)
    for section in range(3):
        put(tree, data_of(section), start_of(tree, section, 1) + 8, b"?")
        (tmp_path / data_of(section)[0] / data_of(section)[1]).write_bytes(tree[data_of(section)])
    seen: list[int] = []

    def report(finding: Finding) -> None:
        seen.append(verification.tally.sections)
        assert finding.section == len(seen) - 1

    verification = Verification(ReadOnlyFileStorage(tmp_path), "j", report)
    await verification.run()
    assert seen == [1, 2, 3]


# Decoding.


async def test_an_item_that_its_codec_refuses_is_found_by_a_deep_look_only(tmp_path: Path) -> None:
    """The records check out: what is in them does not."""
    tree = laid_out(tmp_path, 7)

    class Picky(BytesCodec):
        def decode(self, data: bytes, /) -> bytes:
            if data.startswith((b"item 1", b"item 5")):
                raise ValueError(data)
            return data

    assert (await findings_in(tree))[0] == []
    found, verification = await findings_in(tree, payloads_of=lambda _: payloads_with(Picky()))
    assert lost(found) == [1, 5]
    assert [finding.found for finding in found] == ["ValueError", "ValueError"]
    assert (verification.tally.items, verification.tally.decoded) == (7, 5)


def payloads_with(codec: Any) -> Any:
    return Payloads(Config(partition="j", codec=codec))


async def test_a_frame_that_is_none_is_found_by_a_deep_look(tmp_path: Path) -> None:
    """A record whose word says that it is compressed, and whose payload is not."""
    tree = laid_out(tmp_path, 1)
    header = tree[data_of(0)][: writer.HEADER_LENGTH]
    tree[data_of(0)] = header + writer.record(b"no frame", writer.salt_of(0), 0, compressed=True)
    found, _ = await findings_in(tree, is_deep=True)
    assert [finding.expected for finding in found] == ["one that zstd can decompress"]


# Beside a writer.


async def written_to(root: Path, rng: random.Random) -> None:
    """Do to a journal whatever can be done to one."""
    config: Config[bytes] = Config(partition="j", items_per_section=20, codec=BytesCodec(), write_buffer=300)
    journal = await Journal.init(Context(FileStorage(root)), config)
    for _ in range(effort(80, 5_000)):
        size = journal.size()
        doing = rng.choices(["append", "sync_data", "sync", "prune", "rewind", "open", "reset"], [12, 4, 2, 2, 2, 2, 1])
        if doing == ["append"]:
            await journal.append_many([rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 30))])
        elif doing == ["sync_data"]:
            await journal.sync_data()
        elif doing == ["sync"]:
            await journal.sync()
        elif doing == ["prune"]:
            await journal.prune(rng.randrange(size + 1))
        elif doing == ["rewind"]:
            await journal.rewind(rng.randrange(max(journal.bounds().start, size - 50), size + 1))
        else:
            await journal.close()
            journal = await (
                Journal.init(Context(FileStorage(root)), config)
                if doing == ["open"]
                else Journal.init_at_size(Context(FileStorage(root)), config, rng.randrange(100))
            )
    await journal.close()


async def test_nothing_that_a_writer_does_is_damage(tmp_path: Path) -> None:
    """Verified over and over while the journal is appended to, synced, rolled, pruned, rewound and reset."""
    seed = random.randrange(2**32)
    storage = ReadOnlyFileStorage(tmp_path)
    rounds = 0

    async def is_locked() -> bool:
        return await storage.lock_holder("j_checkpoint") is not None

    writing = asyncio.create_task(written_to(tmp_path, random.Random(seed)))
    try:
        while not writing.done():
            found: list[Finding] = []
            await Verification(storage, "j", found.append, is_locked=is_locked).run()
            assert found == [], f"seed {seed}"
            rounds += 1
    finally:
        await writing
    found = []
    await Verification(storage, "j", found.append, is_locked=is_locked).run()
    assert found == [], f"seed {seed}"
    assert rounds > 5


async def test_damage_is_found_beside_a_writer(tmp_path: Path) -> None:
    """What the checkpoint vouches for all the while is judged, however busy the writer is; the tail is left alone."""
    config: Config[bytes] = Config(partition="j", items_per_section=20, codec=BytesCodec())

    async def yes() -> bool:
        return True

    async with await Journal.init(Context(FileStorage(tmp_path)), config) as journal:
        await journal.append_many([b"item %d" % position for position in range(50)])
        await journal.sync()
        data = tmp_path / "j_data"
        damaged = bytearray((data / f"{1:016x}").read_bytes())
        damaged[-1] ^= 1
        (data / f"{1:016x}").write_bytes(damaged)
        with (data / f"{2:016x}").open("ab") as tail:
            tail.write(b"half a rec")
        before = files_below(tmp_path)
        found: list[Finding] = []
        await Verification(ReadOnlyFileStorage(tmp_path), "j", found.append, is_locked=yes).run()
        assert files_below(tmp_path) == before
        assert lost(found) == [39]
        assert len(found) == 1
        (data / f"{2:016x}").write_bytes((data / f"{2:016x}").read_bytes()[: -len(b"half a rec")])


class Busy(ReadOnlyFileStorage):
    """A storage beside a writer that stores so many checkpoints whenever we look at the data."""

    def __init__(self, root: Path, checkpoints: int, *, durable: int) -> None:
        super().__init__(root)
        self.checkpoints = checkpoints
        self.durable = durable
        self.left = 10**9

    async def open(self, partition: str, name: bytes) -> tuple[Any, int]:
        if partition == "j_data" and self.left:
            self.left -= 1
            path = self.root / "j_checkpoint" / ("0" * 16)
            both = path.read_bytes().ljust(8192, b"\0")
            slots = [writer._checkpoint_of(both[at : at + 4096][:76]) for at in (0, 4096)]
            last = max((slot for slot in slots if slot), key=lambda slot: slot.sequence)
            for sequence in range(last.sequence + 1, last.sequence + 1 + self.checkpoints):
                slot = writer.checkpoint_slot(
                    sequence=sequence,
                    journal_id=last.journal_id,
                    items_per_section=last.items_per_section,
                    durable=self.durable,
                    boundary=last.boundary,
                )
                at = 4096 * ((sequence + 1) % 2)
                both = both[:at] + slot + both[at + 4096 :]
            path.write_bytes(both)
        return await super().open(partition, name)


@pytest.mark.parametrize(
    ("checkpoints", "durable", "looks", "expected"),
    [
        (1, 9, 10**9, "found"),  # each of them was seen
        (3, 9, 10**9, "unsettled"),  # one was not, each time
        (3, 9, 2, "found"),  # one was not, and later there was peace
        (1, 3, 10**9, "unsettled"),  # the item was rewound
    ],
)
async def test_only_what_was_vouched_for_all_the_while_is_damage(
    tmp_path: Path, checkpoints: int, durable: int, looks: int, expected: str
) -> None:
    """A checkpoint that was missed may have been that of a rewind, so the section is looked at again."""
    tree = laid_out(tmp_path, 9)
    put(tree, data_of(1), start_of(tree, 1, 1) + 8, b"?")
    (tmp_path / data_of(1)[0] / data_of(1)[1]).write_bytes(tree[data_of(1)])
    storage = Busy(tmp_path, checkpoints, durable=durable)
    storage.left = looks

    async def yes() -> bool:
        return True

    found: list[Finding] = []
    verification = Verification(storage, "j", found.append, is_locked=yes)
    await verification.run()
    assert lost(found) == ([4] if expected == "found" else [])
    assert bool(verification.tally.unsettled) == (expected == "unsettled")


async def test_a_file_is_as_it_was_after_a_look_at_it(tmp_path: Path) -> None:
    """Verifying changes no byte and no time, in files that are damaged in every way at once."""
    for number, state in enumerate(NAMED[:: effort(4, 1)]):
        root = tmp_path / str(number)
        for (partition, name), content in state.tree.items():
            (root / partition).mkdir(parents=True, exist_ok=True)
            (root / partition / name).write_bytes(content[:-1] + b"?")
        before = files_below(root)
        await Verification(ReadOnlyFileStorage(root), "j", lambda _: None).run()
        assert files_below(root) == before


def test_the_long_run_tries_all() -> None:
    """The sample of the ordinary run is one of damages that are all tried elsewhere."""
    assert (MOST > 1000) == IS_LONG
