"""`errors`: every error carries its facts, says them, and survives being sent to another process."""

import copy
import errno
import os
import pickle
import re
from collections.abc import Iterator

import pytest

from posjournal_async import errors
from posjournal_async.errors import (
    AppendError,
    CodecError,
    Corruption,
    EmptyAppend,
    InvalidConfiguration,
    InvalidRewind,
    ItemOutOfRange,
    ItemPruned,
    ItemTooLarge,
    JournalClosed,
    JournalError,
    JournalFailed,
    JournalLocked,
    PositionError,
    SizeOverflow,
    StorageError,
)

FULL = StorageError("orders_data", bytes(8), errno.ENOSPC, "write")

# For each error, one of each kind that can be made, with its facts and its message. The message is None for those that
# are only caught, never raised.
EXAMPLES: list[tuple[JournalError, dict[str, object], str | None]] = [
    (JournalError(), {}, None),
    (AppendError(), {}, None),
    (PositionError(7), {"position": 7}, None),
    (
        ItemOutOfRange(10, 7),
        {"position": 10, "size": 7},
        "position: expected one below the size 7, found 10",
    ),
    (
        ItemPruned(3, 20),
        {"position": 3, "oldest": 20},
        "position: expected one from the pruning boundary 20 on, found 3",
    ),
    (
        InvalidRewind(2**64 - 1, 10),
        {"position": 2**64 - 1, "size": 10},
        "rewind: expected a size of at most 10 items, found 18446744073709551615",
    ),
    (EmptyAppend(), {}, "append_many: expected at least one item, found none"),
    (
        ItemTooLarge(101, 100),
        {"length": 101, "limit": 100},
        "encoded item: expected at most 100 bytes, found 101 bytes",
    ),
    (
        SizeOverflow(2**64 - 1),
        {"size": 2**64 - 1},
        "size: expected at most 2**64 - 1 items, and a start below that, found 18446744073709551615",
    ),
    (
        CodecError("json", "encode", "expected str, found set"),
        {"codec": "json", "doing": "encode", "reason": "expected str, found set", "position": None},
        "encode with json: expected str, found set",
    ),
    (
        CodecError("zstd", "decompress", "expected one whole frame, found a part", 0),
        {"codec": "zstd", "doing": "decompress", "reason": "expected one whole frame, found a part", "position": 0},
        "decompress with zstd: expected one whole frame, found a part (position 0)",
    ),
    (
        Corruption("header", "one that checks out", "zeros", "orders_data"),
        {
            "what": "header",
            "expected": "one that checks out",
            "found": "zeros",
            "partition": "orders_data",
            "section": None,
            "offset": None,
            "position": None,
        },
        "header: expected one that checks out, found zeros (partition orders_data)",
    ),
    (
        Corruption("record", "one that checks out", "others", "orders_data", 0, 64, 0),
        {
            "what": "record",
            "expected": "one that checks out",
            "found": "others",
            "partition": "orders_data",
            "section": 0,
            "offset": 64,
            "position": 0,
        },
        "record: expected one that checks out, found others (partition orders_data, section 0, offset 64, position 0)",
    ),
    (
        InvalidConfiguration("write_buffer", "1 to 10", 0),
        {"what": "write_buffer", "expected": "1 to 10", "found": 0, "partition": None},
        "write_buffer: expected 1 to 10, found 0",
    ),
    (
        InvalidConfiguration("items_per_section", 10, 20, "orders"),
        {"what": "items_per_section", "expected": 10, "found": 20, "partition": "orders"},
        "items_per_section: expected 10, found 20 (partition orders)",
    ),
    (
        JournalLocked("orders_data"),
        {"partition": "orders_data", "holder": None},
        "lock: expected it to be free, found it held (partition orders_data)",
    ),
    (
        JournalLocked("orders_data", 4_242),
        {"partition": "orders_data", "holder": 4_242},
        "lock: expected it to be free, found it held by process 4242 (partition orders_data)",
    ),
    (
        JournalClosed("orders"),
        {"partition": "orders"},
        "journal: expected it to be open, found it closed (partition orders)",
    ),
    (
        JournalFailed("orders", ValueError("disk on fire")),
        {"partition": "orders"},
        "journal: expected it to be sound, found it failed by: disk on fire (partition orders)",
    ),
    (
        JournalFailed("orders", MemoryError()),
        {"partition": "orders"},
        "journal: expected it to be sound, found it failed by: MemoryError (partition orders)",
    ),
    (
        FULL,
        {"partition": "orders_data", "blob": bytes(8), "errno": errno.ENOSPC, "doing": "write"},
        "write: expected success, found no space left on device (partition orders_data, blob 0000000000000000)",
    ),
    (
        StorageError("orders_data", None, errno.EIO, "scan"),
        {"partition": "orders_data", "blob": None, "errno": errno.EIO, "doing": "scan"},
        f"scan: expected success, found {os.strerror(errno.EIO).lower()} (partition orders_data)",
    ),
    (
        StorageError("orders_data", b"\x1a", None, "sync"),
        {"partition": "orders_data", "blob": b"\x1a", "errno": None, "doing": "sync"},
        "sync: expected success, found it failed (partition orders_data, blob 1a)",
    ),
]

# What a codec says stands in its own words behind the colon; everything else has one shape.
SHAPE = re.compile(r"[a-z_ ]+: expected .+, found .+")
SHAPE_OF_CODEC_ERRORS = re.compile(r"(encode|decode|decompress) with \S+: .+")

each_example = pytest.mark.parametrize(
    ("error", "facts", "message"), [pytest.param(*example, id=repr(example[0])) for example in EXAMPLES]
)
each_name = pytest.mark.parametrize("name", errors.__all__)


def examples_of(name: str) -> Iterator[tuple[JournalError, dict[str, object], str | None]]:
    return (example for example in EXAMPLES if type(example[0]).__name__ == name)


def described(error: BaseException | None) -> object:
    """Return everything by which two errors can be told apart, so that equal errors have equal descriptions."""
    if error is None:
        return None
    facts = {name: described(fact) if isinstance(fact, BaseException) else fact for name, fact in vars(error).items()}
    args = [described(arg) if isinstance(arg, BaseException) else arg for arg in error.args]
    system = (error.errno, error.strerror, error.filename) if isinstance(error, OSError) else None
    return type(error), args, facts, system, str(error), described(error.__cause__)


@each_name
def test_every_error_has_an_example(name: str) -> None:
    """An error that is added cannot stay without the tests of this file."""
    assert list(examples_of(name))


@each_name
def test_every_error_has_the_one_root(name: str) -> None:
    """Whoever catches `JournalError` catches all of them."""
    assert issubclass(getattr(errors, name), JournalError)


def test_every_error_of_the_module_is_public() -> None:
    """No error is raised that cannot be imported by name."""
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


@each_example
def test_an_error_carries_its_facts(error: JournalError, facts: dict[str, object], message: str | None) -> None:
    """What the message says can be had without parsing it."""
    del message
    assert {name: getattr(error, name) for name in facts} == facts


@each_example
def test_an_error_says_its_facts(error: JournalError, facts: dict[str, object], message: str | None) -> None:
    """The message is made of the facts."""
    del facts
    if message is not None:
        assert str(error) == message


@each_name
def test_messages_have_one_shape(name: str) -> None:
    """Lower case, what was expected and what was found, the place in brackets, no full stop."""
    for error, _, message in examples_of(name):
        shape = SHAPE_OF_CODEC_ERRORS if isinstance(error, CodecError) else SHAPE
        assert message is None or shape.fullmatch(str(error))
        assert not str(error).endswith(".")


@each_example
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_pickles(error: JournalError, facts: dict[str, object], message: str | None, protocol: int) -> None:
    """An error that a worker process raises arrives as it was, its cause included."""
    del facts, message
    arrived = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
    assert described(arrived) == described(error)


@each_example
def test_an_error_is_copied(error: JournalError, facts: dict[str, object], message: str | None) -> None:
    """A copy says what the original says."""
    del facts, message
    assert described(copy.copy(error)) == described(error)


@each_example
def test_a_copy_of_an_error_has_its_notes(error: JournalError, facts: dict[str, object], message: str | None) -> None:
    """What was noted on the way, as of a handle that could not be closed either, and what a handler has added."""
    del facts, message
    noted = copy.copy(error)
    noted.add_note("and closing it failed too")
    noted.request = 7  # type: ignore[attr-defined]
    for copied in (copy.copy(noted), copy.deepcopy(noted), pickle.loads(pickle.dumps(noted))):  # noqa: S301 - our own bytes
        assert copied.__notes__ == ["and closing it failed too"]
        assert vars(copied)["request"] == 7


@each_example
def test_an_error_is_raised_and_caught(error: JournalError, facts: dict[str, object], message: str | None) -> None:
    """It is itself when it is caught under the root."""
    del facts, message
    with pytest.raises(JournalError) as caught:
        raise error
    assert caught.value is error


@pytest.mark.parametrize("kind", [ItemOutOfRange, ItemPruned, InvalidRewind])
def test_a_position_that_is_not_there_is_an_index_error(
    kind: type[ItemOutOfRange | ItemPruned | InvalidRewind],
) -> None:
    """Code that knows sequences knows what it means."""
    with pytest.raises(IndexError):
        raise kind(7, 5)
    assert issubclass(kind, PositionError)


@pytest.mark.parametrize("kind", [EmptyAppend, ItemTooLarge, SizeOverflow])
def test_a_refused_append_is_an_append_error(kind: type[AppendError]) -> None:
    """One `except` is enough for everything that was not appended."""
    assert issubclass(kind, AppendError)


@pytest.mark.parametrize("kind", [JournalLocked, StorageError])
def test_what_the_system_refused_is_an_os_error(kind: type[JournalLocked | StorageError]) -> None:
    """Code that knows files knows what it means."""
    assert issubclass(kind, OSError)


def test_no_other_error_is_an_os_error() -> None:
    """A handler of full disks and the like does not swallow a corruption."""
    found = {name for name in errors.__all__ if issubclass(getattr(errors, name), OSError)}
    assert found == {"JournalLocked", "StorageError"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_storage_error_has_the_number_of_the_system(code: int) -> None:
    """A full disk can be told from a broken one as with any other `OSError`."""
    with pytest.raises(OSError, match="expected success") as caught:
        raise StorageError("orders_data", bytes(8), code, "write")
    assert caught.value.errno == code


@pytest.mark.parametrize("error", [FULL, JournalLocked("orders_data"), JournalLocked("orders_data", 7)], ids=repr)
def test_the_attributes_of_an_os_error_are_its_own(error: StorageError | JournalLocked) -> None:
    """A handler that logs `errno`, `strerror` and `filename` of any `OSError` logs numbers, texts and paths."""
    assert error.errno is None or isinstance(error.errno, int)
    assert error.strerror is None or isinstance(error.strerror, str)
    assert error.filename is None or isinstance(error.filename, str)


def test_a_failed_journal_names_its_first_failure() -> None:
    """The first failure is the cause, also for a traceback."""
    failed = JournalFailed("orders", FULL)
    assert failed.cause is FULL
    assert failed.__cause__ is FULL
    assert str(FULL) in str(failed)
