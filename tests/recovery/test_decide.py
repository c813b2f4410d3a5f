"""`decide`: from facts that are built by hand to a plan, or to the error that says why there is none."""

from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posjournal_async.errors import Corruption, InvalidConfiguration
from posjournal_async.format.checkpoint_slot import Slot
from posjournal_async.format.header import BadHeader, Header, HeaderFault, Kind
from posjournal_async.recovery.facts import Facts, SectionFacts
from posjournal_async.recovery.plan import Expectation, Plan, Rewrite, decide
from posjournal_async.scan import Scan

IPS = 10
RECORD = 20
EXPECTED = Expectation("orders", IPS, "bytes")
INTERRUPTED = SectionFacts(BadHeader(HeaderFault.INTERRUPTED), 0)


def slot_of(durable: int, boundary: int = 0, sequence: int = 5) -> Slot:
    return Slot(sequence, 77, IPS, "bytes", durable, boundary)


def header_of(section: int, first: int | None = None) -> Header:
    return Header(Kind.DATA, 77, section, IPS, section * IPS if first is None else first, 1234, "bytes")


def scanned(section: int, count: int, *, first: int | None = None, junk: int = 0, extra: bool = False) -> SectionFacts:
    """A data blob with `count` records of 20 bytes and `junk` bytes behind them."""
    starts = array("Q", range(64, 64 + count * RECORD, RECORD))
    end = 64 + count * RECORD
    return SectionFacts(header_of(section, first), end + junk, Scan(starts, end, end + junk, extra), count, end)


def counted(section: int, count: int) -> SectionFacts:
    """A data blob without an index, of which only the number of records was kept."""
    return SectionFacts(header_of(section), 64 + count * RECORD, count=count)


def header_only(section: int, first: int | None = None) -> SectionFacts:
    """A data blob with an index, of which only the header was read."""
    return SectionFacts(header_of(section, first), 64 + IPS * RECORD)


# What is as it should be.


def test_a_closed_journal_needs_nothing() -> None:
    """The last section is taken as the tail, its index is compared, and no byte is cut."""
    facts = Facts(slot_of(25), 0, (0, 1, 2), (0, 1, 2), {0: header_only(0), 2: scanned(2, 5)})
    plan = decide(facts, EXPECTED)
    end = 64 + 5 * RECORD
    assert plan == Plan(0, 25, 25, rewrites=(Rewrite(2, end, end, end),), align=(2,), tail=2)
    assert plan.is_clean


def test_an_empty_journal_needs_nothing() -> None:
    """At 0 as well as at the size that a reset left."""
    for size in (0, 7, 2**64 - 2):
        plan = decide(Facts(slot_of(size, size)), EXPECTED)
        assert plan == Plan(size, size, size)
        assert plan.is_clean


def test_a_full_last_section_has_no_tail() -> None:
    """Legal: the next append makes the next section."""
    plan = decide(Facts(slot_of(20), 0, (0, 1), (0, 1), {0: header_only(0), 1: scanned(1, 10)}), EXPECTED)
    assert (plan.size, plan.tail, plan.is_clean) == (20, None, True)


def test_a_section_that_starts_in_the_middle_counts_from_there() -> None:
    """`init_at_size` left position 7 as the first of its section."""
    plan = decide(Facts(slot_of(9, 7), 0, (0,), (0,), {0: scanned(0, 2, first=7)}), EXPECTED)
    assert (plan.boundary, plan.size, plan.tail, plan.is_clean) == (7, 9, 0, True)


# What a crash explains.


def test_records_above_the_durable_size_are_adopted_and_written_again() -> None:
    """From the first byte that no sync vouches for to the end of the last record; the rest is cut (D3)."""
    plan = decide(Facts(slot_of(22), 0, (0, 1, 2), (0, 1, 2), {0: header_only(0), 2: scanned(2, 5, junk=3)}), EXPECTED)
    assert plan.rewrites == (Rewrite(2, 64 + 2 * RECORD, 64 + 5 * RECORD, 64 + 5 * RECORD + 3),)
    assert (plan.size, plan.was_durable, plan.is_clean) == (25, 22, False)


def test_a_section_above_the_durable_size_is_written_again_from_its_first_byte() -> None:
    """Nothing shows that its header is durable."""
    sections = {0: header_only(0), 1: scanned(1, 10), 2: scanned(2, 1)}
    plan = decide(Facts(slot_of(15), 0, (0, 1, 2), (0, 1, 2), sections), EXPECTED)
    assert [(rewrite.section, rewrite.start) for rewrite in plan.rewrites] == [(1, 64 + 5 * RECORD), (2, 0)]
    assert plan.align == (1, 2)


def test_junk_behind_the_last_record_makes_the_journal_unclean() -> None:
    """What is cut is cut, durable or not."""
    plan = decide(Facts(slot_of(5), 0, (0,), (0,), {0: scanned(0, 5, junk=1)}), EXPECTED)
    assert (plan.size, plan.is_clean) == (5, False)


def test_sections_behind_a_short_one_are_dropped_newest_first() -> None:
    """The longest prefix without a gap stays, and what could be read behind it is counted."""
    sections = {0: scanned(0, 10), 1: scanned(1, 4), 2: scanned(2, 10), 3: scanned(3, 2)}
    plan = decide(Facts(slot_of(3), 0, (0, 1, 2, 3), (0, 1, 2), sections), EXPECTED)
    assert (plan.size, plan.tail) == (14, 1)
    assert (plan.drop_data, plan.drop_offsets, plan.items_dropped) == ((3, 2), (2,), 12)


def test_sections_behind_a_missing_one_are_dropped() -> None:
    """A gap in the names ends the prefix as a short section does."""
    sections = {0: scanned(0, 10), 2: scanned(2, 10)}
    plan = decide(Facts(slot_of(3), 0, (0, 2), (0, 2), sections), EXPECTED)
    assert (plan.size, plan.tail, plan.drop_data, plan.items_dropped) == (10, None, (2,), 10)


def test_what_a_rewind_to_the_boundary_left_is_dropped() -> None:
    """The first blob is there as long as another one is; and all of the index."""
    facts = Facts(slot_of(0), 0, (0, 2), (0, 1, 2), {0: INTERRUPTED, 2: scanned(2, 5)})
    plan = decide(facts, EXPECTED)
    assert (plan.size, plan.drop_data, plan.drop_offsets) == (0, (2, 0), (2, 1, 0))


def test_interrupted_creations_at_the_end_are_dropped() -> None:
    """Empty trailing blobs hold nothing, however many they are."""
    sections = {0: header_only(0), 1: scanned(1, 10), 2: INTERRUPTED, 3: INTERRUPTED}
    plan = decide(Facts(slot_of(20), 0, (0, 1, 2, 3), (0, 1), sections), EXPECTED)
    assert (plan.size, plan.tail, plan.drop_data, plan.items_dropped) == (20, None, (3, 2), 0)


def test_an_interrupted_creation_where_a_reset_left_the_journal_is_dropped() -> None:
    """The first append after `init_at_size(7)` had just made its blob."""
    plan = decide(Facts(slot_of(7, 7), 0, (0,), (), {0: INTERRUPTED}), EXPECTED)
    assert (plan.boundary, plan.size, plan.drop_data) == (7, 7, (0,))


def test_what_a_prune_left_below_the_boundary_goes_oldest_first() -> None:
    """Data and offsets, whatever they hold: they are not looked at."""
    facts = Facts(slot_of(25, 20), 0, (0, 1, 2), (1, 2), {2: scanned(2, 5)})
    plan = decide(facts, EXPECTED)
    assert (plan.prune_data, plan.prune_offsets, plan.drop_data) == ((0, 1), (1,), ())
    assert (plan.boundary, plan.size) == (20, 25)
    assert not plan.is_clean


def test_a_missing_index_is_made_from_the_gap_on() -> None:
    """The section before the gap may have a half-made index; what is behind the gap is dropped and made anew."""
    sections = {0: header_only(0), 1: counted(1, 10), 2: counted(2, 10), 3: scanned(3, 5)}
    plan = decide(Facts(slot_of(35), 0, (0, 1, 2, 3), (0, 1, 3), sections), EXPECTED)
    assert plan.align == (1, 2, 3)
    assert plan.drop_offsets == (3,)


def test_an_index_without_data_is_dropped() -> None:
    """Data goes before offsets when both are removed."""
    plan = decide(Facts(slot_of(5), 0, (0,), (0, 1), {0: scanned(0, 5)}), EXPECTED)
    assert plan.drop_offsets == (1,)


def test_a_lost_or_damaged_checkpoint_is_noted() -> None:
    """A slot with sequence number 0 stands in for one that is lost."""
    sections = {0: scanned(0, 5)}
    lost = decide(Facts(slot_of(0, sequence=0), 2, (0,), (0,), sections), EXPECTED)
    torn = decide(Facts(slot_of(0), 1, (0,), (0,), sections), EXPECTED)
    assert "lost" in lost.notes[0]
    assert "torn" in torn.notes[0]


def test_a_reset_that_is_done_is_taken_off_record() -> None:
    """Else the loss of one slot would do it again; and it is no clean opening."""
    plan = decide(Facts(slot_of(5), 0, (0,), (0,), {0: scanned(0, 5)}, is_reset_behind=True), EXPECTED)
    assert plan.finishes_reset
    assert not plan.is_clean


# What no crash explains.


CORRUPT = {
    "data gone": Facts(slot_of(5), 0, (), (), {}),
    "data gone behind the boundary": Facts(slot_of(25, 20), 0, (0, 1), (0, 1), {}),
    "the first section gone": Facts(slot_of(25), 0, (1, 2), (1, 2), {1: header_only(1), 2: scanned(2, 5)}),
    "a section in the middle gone": Facts(slot_of(25), 0, (0, 2), (0, 2), {0: header_only(0), 2: scanned(2, 5)}),
    "the last section gone": Facts(slot_of(25), 0, (0, 1), (0, 1), {0: header_only(0), 1: scanned(1, 10)}),
    "a durable record gone": Facts(slot_of(25), 0, (0, 1, 2), (0, 1, 2), {0: header_only(0), 2: scanned(2, 4)}),
    "a short section": Facts(slot_of(25), 0, (0, 1, 2), (0,), {0: counted(0, 10), 1: counted(1, 9), 2: scanned(2, 5)}),
    "an empty section below": Facts(slot_of(25), 0, (0, 1, 2), (0, 1, 2), {0: INTERRUPTED, 2: scanned(2, 5)}),
    "an empty section with a durable item": Facts(slot_of(1), 0, (0,), (0,), {0: INTERRUPTED}),
    "a bad header": Facts(slot_of(0), 0, (0,), (), {0: SectionFacts(BadHeader(HeaderFault.DAMAGED), 90)}),
    "more records than fit": Facts(slot_of(10), 0, (0,), (0,), {0: scanned(0, 10, junk=20, extra=True)}),
    "the first data lost": Facts(slot_of(0), 0, (1, 2), (0, 1, 2), {1: scanned(1, 10), 2: scanned(2, 5)}),
    "data pruned further": Facts(slot_of(0), 0, (1, 2), (1, 2), {1: scanned(1, 10), 2: scanned(2, 5)}),
    "an index pruned further": Facts(slot_of(15), 0, (0, 1), (1,), {0: counted(0, 10), 1: scanned(1, 5)}),
    "another journal": Facts(
        slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=replace(header_of(0), journal_id=78))}
    ),
    "another journal below the boundary": Facts(
        slot_of(25, 25), 0, (0, 1), (0, 1), {0: replace(header_only(0), header=replace(header_of(0), journal_id=78))}
    ),
    "another section": Facts(slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=header_of(1))}),
    "another section size": Facts(
        slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=replace(header_of(0), items_per_section=9))}
    ),
    "another codec": Facts(
        slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=replace(header_of(0), codec="json"))}
    ),
    "another first position": Facts(slot_of(0), 0, (0,), (0,), {0: scanned(0, 2, first=7)}),
    "an index in place of data": Facts(
        slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=replace(header_of(0), kind=Kind.OFFSETS))}
    ),
}


@pytest.mark.parametrize("facts", CORRUPT.values(), ids=CORRUPT.keys())
def test_what_no_crash_explains_is_corruption(facts: Facts) -> None:
    """F4: there is no plan, so nothing is touched."""
    with pytest.raises(Corruption) as raised:
        decide(facts, EXPECTED)
    assert raised.value.partition in {"orders_data", "orders_offsets"}


def test_corruption_says_where_the_first_missing_record_should_be() -> None:
    """Section, byte and position are facts of the error, for whoever has to look at the file."""
    with pytest.raises(Corruption) as raised:
        decide(CORRUPT["a durable record gone"], EXPECTED)
    error = raised.value
    assert (error.what, error.section, error.offset, error.position) == ("record", 2, 64 + 4 * RECORD, 24)
    with pytest.raises(Corruption) as raised:
        decide(CORRUPT["an empty section with a durable item"], EXPECTED)
    error = raised.value
    assert (error.what, error.section, error.offset) == ("header", 0, 0)


@pytest.mark.parametrize(
    "expectation",
    [replace(EXPECTED, items_per_section=11), replace(EXPECTED, codec="json")],
    ids=["items_per_section", "codec"],
)
def test_another_configuration_is_refused(expectation: Expectation) -> None:
    """Whatever else the facts are."""
    with pytest.raises(InvalidConfiguration) as raised:
        decide(Facts(slot_of(5), 0, (), (), {}), expectation)
    assert raised.value.partition == "orders"


def test_what_an_older_codec_wrote_is_accepted_where_the_codec_says_so() -> None:
    """In the checkpoint and in each header, and its own name is to be recorded; a header may be older or newer."""
    new = replace(EXPECTED, codec="new", accepts=lambda name: name in {"old", "bytes"})
    sections = {0: header_only(0), 2: replace(scanned(2, 5), header=replace(header_of(2), codec="old"))}
    facts = Facts(slot_of(25), 0, (0, 1, 2), (0, 1, 2), sections)
    plan = decide(facts, new)
    assert (plan.size, plan.tail, plan.codec, plan.is_clean) == (25, 2, "new", True)
    for codec in ("new", "old"):
        recorded = decide(replace(facts, slot=replace(slot_of(25), codec=codec)), new)
        assert recorded == replace(plan, codec=None if codec == "new" else "new")


@pytest.mark.parametrize("section", [0, 2])
def test_a_section_of_a_codec_that_is_not_accepted_is_refused(section: int) -> None:
    """Whatever the checkpoint says: the codec could not read its items."""
    new = replace(EXPECTED, codec="new", accepts=lambda name: name == "bytes")
    sections = {0: header_only(0), 2: scanned(2, 5)}
    sections[section] = replace(sections[section], header=replace(header_of(section), codec="older"))
    with pytest.raises(InvalidConfiguration) as raised:
        decide(Facts(slot_of(25), 0, (0, 1, 2), (0, 1, 2), sections), new)
    error = raised.value
    assert (error.what, error.expected, error.found) == (f"codec of section {section}", "older", "new")
    assert error.partition == "orders"


def test_an_accepted_name_excuses_no_other_difference() -> None:
    """F4: the blob of another journal is corruption, whoever wrote it."""
    new = replace(EXPECTED, codec="new", accepts=lambda _: True)
    header = replace(header_of(0), codec="old", journal_id=78)
    with pytest.raises(Corruption):
        decide(Facts(slot_of(0), 0, (0,), (0,), {0: replace(scanned(0, 5), header=header)}), new)


def test_another_version_of_the_format_is_refused() -> None:
    """A blob with a good checksum that a later version wrote."""
    facts = Facts(slot_of(0), 0, (0,), (0,), {0: SectionFacts(BadHeader(HeaderFault.VERSION, 2), 90)})
    with pytest.raises(InvalidConfiguration) as raised:
        decide(facts, EXPECTED)
    assert raised.value.found == 2


def test_what_is_known_of_many_sections_does_as_well_as_all_their_records() -> None:
    """Between the durable size and the last section it is enough to know how many there are, and where they end."""
    whole = {1: scanned(1, 10), 2: scanned(2, 10, junk=3), 3: scanned(3, 10), 4: scanned(4, 2)}
    counted_only = whole | {section: replace(whole[section], scan=None) for section in (2, 3)}
    wanted = decide(Facts(slot_of(14, 10), 0, (1, 2, 3, 4), (1, 2, 3, 4), whole), EXPECTED)
    assert wanted.size == 42
    assert decide(Facts(slot_of(14, 10), 0, (1, 2, 3, 4), (1, 2, 3, 4), counted_only), EXPECTED) == wanted


# Whatever the facts.


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Facts as `observe` may state them: mostly what a crash leaves, with some damage in it."""
    boundary = draw(st.sampled_from([0, 0, 10, 13]))
    durable = draw(st.integers(boundary, boundary + 25))
    data = draw(st.lists(st.integers(0, 5), unique=True, max_size=6).map(sorted) | st.just([0, 1, 2, 3, 4]))
    offsets = draw(st.lists(st.integers(0, 6), unique=True, max_size=6).map(sorted) | st.just(list(data)))
    kept = [section for section in data if section >= boundary // IPS]
    doubtful = min(durable // IPS, kept[-1]) if kept else 0
    unindexed = {section for section in kept if section >= min((set(kept) - set(offsets)) or {9}) - 1}
    sections = {}
    for section in kept:
        first = max(section * IPS, boundary)
        room = (section + 1) * IPS - first
        if section >= doubtful:
            count = draw(st.sampled_from([room, room, room, max(room - 3, 0), 0]))
            whole = scanned(section, count, first=first, junk=draw(st.sampled_from([0, 0, 7])))
            forgotten = whole if section in {doubtful, kept[-1]} else replace(whole, scan=None)
            sections[section] = draw(st.sampled_from([whole, whole, forgotten, INTERRUPTED]))
        elif section in unindexed:
            sections[section] = replace(counted(section, room), header=header_of(section, first))
        elif section == kept[0]:
            sections[section] = header_only(section, first)
    return Facts(slot_of(durable, boundary), draw(st.integers(0, 1)), data, offsets, sections)


@given(some_facts())
def test_a_plan_keeps_a_contiguous_prefix_and_everything_durable(facts: Facts) -> None:
    """F4 and D2: what is dropped lies behind what stays, and what stays has no gap and ends where it may."""
    try:
        plan = decide(facts, EXPECTED)
    except Corruption:
        return
    first = facts.slot.boundary // IPS
    stays = sorted({*facts.data} - {*plan.prune_data} - {*plan.drop_data})
    assert plan.boundary == facts.slot.boundary
    assert plan.size >= facts.slot.durable
    assert stays == list(range(first, first + len(stays)))
    assert plan.size <= max(((first + len(stays)) * IPS), plan.boundary)
    assert all(section < first for section in plan.prune_data)
    assert list(plan.drop_data) == sorted(plan.drop_data, reverse=True)
    assert all(section > max([first - 1, *stays]) for section in plan.drop_data)


@given(some_facts())
def test_a_plan_never_cuts_or_leaves_unwritten_what_it_may_not(facts: Facts) -> None:
    """D3: a rewrite begins at or below the first byte that is not durable, and cuts only behind the last record."""
    try:
        plan = decide(facts, EXPECTED)
    except Corruption:
        return
    rewrites = {rewrite.section: rewrite for rewrite in plan.rewrites}
    for section, found in facts.sections.items():
        if found.end is None or section in plan.drop_data or not isinstance(found.header, Header):
            continue
        above = plan.was_durable - found.header.first
        undurable = 64 + above * RECORD if above > 0 else 0
        rewrite = rewrites[section]
        assert rewrite.start <= undurable
        assert (rewrite.end, rewrite.length) == (found.end, found.length)


@given(some_facts())
def test_a_plan_leaves_one_index_for_each_section_of_data(facts: Facts) -> None:
    """A3: an index that stays belongs to data that stays, and every section without one gets one."""
    try:
        plan = decide(facts, EXPECTED)
    except Corruption:
        return
    stays = {*facts.data} - {*plan.prune_data} - {*plan.drop_data}
    indexed = {*facts.offsets} - {*plan.prune_offsets} - {*plan.drop_offsets}
    assert indexed <= stays
    assert stays - indexed <= {*plan.align} <= stays
    assert plan.tail is None or plan.tail == max(stays)
