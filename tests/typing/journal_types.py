"""What a type checker makes of journals: read by mypy and pyright, run by nobody."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, assert_type

from posjournal_async import (
    BytesCodec,
    Codec,
    Config,
    Context,
    Contiguous,
    FileStorage,
    Journal,
    JsonCodec,
    MemoryStorage,
    RecoveryReport,
    Storage,
)


@dataclass(frozen=True)
class Order:
    """An item with a type of its own."""

    number: int


class OrderCodec:
    """A codec that derives from nothing: it satisfies the protocol."""

    name = "order"

    def encode(self, item: Order, /) -> bytes:
        """Turn an order into bytes."""
        return item.number.to_bytes(8)

    def decode(self, data: bytes, /) -> Order:
        """Turn the bytes into an order."""
        return Order(int.from_bytes(data))


async def a_codec_says_what_the_items_are(context: Context) -> None:
    """The type of the items goes from the codec to the configuration, the journal, and what it gives back."""
    config = Config(partition="orders", codec=BytesCodec())
    assert_type(config, Config[bytes])
    journal = await Journal.init(context, config)
    assert_type(journal, Journal[bytes])
    assert_type(await journal.append(b"item"), int)
    assert_type(await journal.append_many([b"item"]), int)
    assert_type(await journal.read(0), bytes)
    assert_type(await journal.read_many([0]), list[bytes])
    assert_type(journal.replay(0), AsyncGenerator[tuple[int, bytes], None])
    assert_type(journal.replay_batches(0), AsyncGenerator[tuple[int, list[bytes]], None])
    assert_type(await journal.prune(0), bool)
    assert_type(journal.size(), int)
    assert_type(journal.durable_size(), int)
    assert_type(journal.oldest_retained_pos(), int | None)
    assert_type(journal.bounds(), range)
    assert_type(journal.recovery, RecoveryReport)
    assert_type(journal.config, Config[bytes])
    async for position, item in journal.replay(0):
        assert_type(position, int)
        assert_type(item, bytes)


async def a_codec_of_ones_own_does_the_same(context: Context) -> None:
    """A class that derives from nothing is a codec."""
    codec: Codec[Order] = OrderCodec()
    journal = await Journal.init(context, Config(partition="orders", codec=codec))
    assert_type(journal, Journal[Order])
    assert_type(await Journal.init_at_size(context, Config(partition="orders", codec=OrderCodec()), 7), Journal[Order])
    assert_type(
        await Journal.init_sync(context, Config(partition="orders", codec=OrderCodec()), range(7, 9)), Journal[Order]
    )
    async with journal as entered:
        assert_type(entered, Journal[Order])


async def without_a_codec_items_are_any(context: Context) -> None:
    """MessagePack and JSON hold many things; so does the default."""
    config: Config = Config(partition="orders")
    assert_type(config, Config[Any])
    assert_type(await Journal.init(context, config), Journal[Any])
    assert_type(await Journal.init(context, Config(partition="orders", codec=JsonCodec())), Journal[Any])
    async with Journal.open("./data/orders") as journal:
        assert_type(journal, Journal[Any])
        await journal.append({"order": 7})
    assert_type(await Journal.open("./data/orders"), Journal[Any])


def a_journal_is_contiguous(journal: Journal[bytes]) -> Contiguous[bytes]:
    """Code that asks for the protocol takes a journal."""
    return journal


def storages() -> list[Storage]:
    """Both storages satisfy the protocol."""
    return [FileStorage("./data"), MemoryStorage()]


async def what_does_not_fit_is_refused(journal: Journal[bytes], context: Context) -> None:
    """Each line here is an error of its type; a checker that finds none complains about the comment."""
    await journal.append("text")  # type: ignore[arg-type]
    await journal.append_many(["text"])  # type: ignore[list-item]
    await journal.read("0")  # type: ignore[arg-type]
    Config("orders")  # type: ignore[call-arg]
    Config(partition="orders", codec=object())  # type: ignore[arg-type]
    Context(object())  # type: ignore[arg-type]
    orders: Journal[Order] = await Journal.init(context, Config(partition="orders", codec=BytesCodec()))  # type: ignore[arg-type]
    await orders.close()
