"""Parquet, by the extra `arrow`: the one door of pyarrow.

A file has the columns `position` (unsigned, 64 bits) and `item` (text): the JSON form of `json_form.py`, whatever the
items are. So the columns are known without a look at the items, and nothing is lost.
"""

from __future__ import annotations

from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["ParquetWriter", "is_parquet", "parquet_length", "parquet_rows"]

_MAGIC = b"PAR1"

# What is collected for one row group: this many rows, or this much text.
_GROUP_ROWS = 65_536
_GROUP_TEXT = 16 * 2**20

# Rows that are made into Python objects at once.
_READ_ROWS = 1_024


def _pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet.

    Raises:
        click.UsageError: The extra is not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise click.UsageError("Parquet needs the extra \"arrow\": pip install 'posjournal_async[arrow]'") from None


class ParquetWriter:
    """Writes positions and items to a file, a bounded number of them in memory.

    Args:
        file: Where to.
        codec: Name of the journal's codec, which is noted in the file.
        with_positions: Whether there is a column for positions.
    """

    def __init__(self, file: IO[bytes], codec: str, *, with_positions: bool) -> None:
        self._arrow, parquet = _pyarrow()
        columns = [("position", self._arrow.uint64())] if with_positions else []
        metadata = {"posjournal.codec": codec, "posjournal.form": "1"}
        self._schema = self._arrow.schema([*columns, ("item", self._arrow.string())], metadata=metadata)
        self._with_positions = with_positions
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._positions: list[int] = []
        self._texts: list[str] = []
        self._length = 0

    def add(self, position: int, text: str) -> None:
        """Add one item, as its JSON form."""
        self._positions.append(position)
        self._texts.append(text)
        self._length += len(text)
        if len(self._texts) >= _GROUP_ROWS or self._length >= _GROUP_TEXT:
            self._write()

    def _write(self) -> None:
        columns = [self._positions, self._texts] if self._with_positions else [self._texts]
        arrays = [
            self._arrow.array(values, type=field.type) for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._positions, self._texts, self._length = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._texts:
            self._write()
        self._writer.close()


def is_parquet(file: IO[bytes]) -> bool:
    """Say whether a file begins as Parquet does; it is read from its start on after that."""
    head = file.read(len(_MAGIC))
    file.seek(0)
    return head == _MAGIC


def parquet_length(file: IO[bytes]) -> int:
    """Return the number of rows of a file.

    Raises:
        ValueError: It is no Parquet.
    """
    return int(_opened(file).metadata.num_rows)


def parquet_rows(file: IO[bytes], *, with_positions: bool) -> Iterator[tuple[int | None, str]]:
    """Yield the position and the JSON form of the item of each row; the position is None without positions.

    Raises:
        ValueError: It is no Parquet, or has not the columns that it needs.
    """
    reader = _opened(file)
    columns = ["position", "item"] if with_positions else ["item"]
    missing = set(columns).difference(reader.schema_arrow.names)
    if missing:
        found = ", ".join(map(repr, reader.schema_arrow.names))
        raise ValueError(f"expected the columns {' and '.join(columns)}, found {found}")
    for batch in reader.iter_batches(batch_size=_READ_ROWS, columns=columns):
        texts = batch.column("item").to_pylist()
        positions = batch.column("position").to_pylist() if with_positions else [None] * len(texts)
        yield from zip(positions, texts, strict=True)


def _opened(file: IO[bytes]) -> Any:
    arrow, parquet = _pyarrow()
    file.seek(0)
    try:
        return parquet.ParquetFile(file)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"expected Parquet: {error}") from error
