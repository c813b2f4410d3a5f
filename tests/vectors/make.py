"""Make the golden vectors and the worked example of `docs/format.md`: `python -m tests.vectors.make`.

All bytes come from `tests/format/writer.py`, none from the library.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.format.writer import (
    checkpoint_blob,
    checkpoint_slot,
    data_blob,
    data_header,
    offsets_blob,
    offsets_header,
    record,
    zstd_frame,
)

__all__ = [
    "DOCUMENT",
    "FOLDER",
    "JOURNAL_ID",
    "SALT",
    "hex_of",
    "main",
    "vectors",
    "with_worked_example",
    "worked_example",
]

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parents[1] / "docs" / "format.md"

JOURNAL_ID = 0x0123_4567_89AB_CDEF
SALT = 0x5EED_5A17

_BYTES_PER_LINE = 32
_HEADING = "## Worked example\n"
_HEADER_FIELDS = [
    (8, "magic"),
    (2, "format version"),
    (6, "zero"),
    (8, "journal id"),
    (8, "section number"),
    (8, "items per section"),
    (8, "first position"),
    (4, "salt"),
    (8, "codec name"),
    (4, "CRC-32C of bytes 0 to 60"),
]
_SLOT_FIELDS = [
    (8, "magic"),
    (2, "format version"),
    (6, "zero"),
    (8, "sequence number"),
    (8, "journal id"),
    (8, "items per section"),
    (8, "codec name"),
    (8, "durable size"),
    (8, "pruning boundary"),
    (8, "reset target: none"),
    (4, "CRC-32C of bytes 0 to 72"),
]


def vectors() -> dict[str, bytes]:
    """Return the bytes of each vector by its name; `README.md` beside this says what each one holds."""
    data = partial(data_header, journal_id=JOURNAL_ID, section=26, items_per_section=10, salt=SALT)
    offsets = partial(offsets_header, journal_id=JOURNAL_ID, section=26, items_per_section=10, salt=SALT)
    slot = partial(checkpoint_slot, journal_id=JOURNAL_ID, items_per_section=10)
    records = [
        record(b"first", SALT, 260),
        record(b"", SALT, 261),
        record(zstd_frame(b"third" * 5), SALT, 262, compressed=True),
    ]
    return {
        "record-plain": record(b"hello, journal", SALT, 7),
        "record-empty": record(b"", SALT, 0),
        "record-last-position": record(b"\x00\xff", SALT, 2**64 - 2),
        "record-compressed": record(zstd_frame(b"hello, journal"), SALT, 7, compressed=True),
        "data-header": data(first=260),
        "data-header-parked": data(first=267),
        "offsets-header": offsets(first=260),
        "data-blob": data_blob(data(first=260), records),
        "offsets-blob": offsets_blob(offsets(first=260), records),
        "checkpoint-fresh": slot(sequence=1, durable=0, boundary=0),
        "checkpoint-reset": slot(sequence=9, durable=263, boundary=260, reset=1_000),
        "checkpoint-blob": checkpoint_blob(
            [
                slot(sequence=3, durable=263, boundary=260),
                slot(sequence=2, durable=263, boundary=250),
            ]
        ),
    }


def hex_of(blob: bytes) -> str:
    """Return the text of a vector's file: hex, 32 bytes a line."""
    lines = [blob[at : at + _BYTES_PER_LINE].hex() for at in range(0, len(blob), _BYTES_PER_LINE)]
    return "\n".join(lines) + "\n"


def worked_example() -> str:
    """Return the section of `docs/format.md` that goes through a small journal field by field."""
    records = [record(b"tea", SALT, 0), record(b"cake", SALT, 1)]
    data = data_header(journal_id=JOURNAL_ID, section=0, items_per_section=3, first=0, salt=SALT)
    offsets = offsets_header(journal_id=JOURNAL_ID, section=0, items_per_section=3, first=0, salt=SALT)
    slot = checkpoint_slot(journal_id=JOURNAL_ID, items_per_section=3, sequence=2, durable=2, boundary=0)
    record_fields = []
    start_fields = []
    for position, item in enumerate(("tea", "cake")):
        record_fields += [
            (4, f"position {position}, word: payload length + 1"),
            (4, f"position {position}, CRC-32C of the payload, seeded"),
            (len(item), f"position {position}, payload: {item}"),
        ]
        start_fields.append((8, f"byte at which the record of position {position} starts"))
    return f"""\
{_HEADING}
A journal `snacks` with the codec `bytes` and 3 items per section holds the items `tea` and `cake`, and was synced.
Its id is `{JOURNAL_ID:#018x}`, the salt of its one section `{SALT:#010x}`; so the checksum of the second record is
seeded with `{SALT:#010x} xor 1 xor 5 = {SALT ^ 1 ^ 5:#010x}`. Columns: at, bytes, field.
`python -m tests.vectors.make` writes this section.

`snacks_data/0000000000000000`:

```text
{_dump(data_blob(data, records), _HEADER_FIELDS + record_fields)}\
```

`snacks_offsets/0000000000000000`:

```text
{_dump(offsets_blob(offsets, records), _HEADER_FIELDS + start_fields)}\
```

`snacks_checkpoint/0000000000000000`, from byte 4,096 on. The rest of the slot is zeros; the slot at 0 holds the
checkpoint before it, with the sequence number 1 and the durable size 0.

```text
{_dump(slot, _SLOT_FIELDS)}\
```
"""


def _dump(blob: bytes, fields: list[tuple[int, str]]) -> str:
    lines = []
    at = 0
    for length, meaning in fields:
        lines.append(f"{at:>4}  {blob[at : at + length].hex(' '):<23}  {meaning}\n")
        at += length
    assert not any(blob[at:])
    return "".join(lines)


def with_worked_example(document: str) -> str:
    """Return the text of `docs/format.md` with its last section, the worked example, made anew."""
    before, _, _ = document.partition(_HEADING)
    return before.rstrip("\n") + "\n\n" + worked_example()


def main() -> None:
    """Write all files."""
    for name, blob in vectors().items():
        (FOLDER / f"{name}.hex").write_text(hex_of(blob), encoding="ascii")
    DOCUMENT.write_text(with_worked_example(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
