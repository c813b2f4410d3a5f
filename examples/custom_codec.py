"""Keep dataclasses in a journal, packed by a codec of your own: a type checker knows what `read` returns.

    python examples/custom_codec.py

Prints how many bytes a sample takes in MessagePack and packed, the samples of one sensor as the journal gives them
back, and the refusal of a sample that cannot be packed.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from struct import Struct

from posjournal_async import CodecError, Config, Context, Journal, MemoryStorage, MsgpackCodec


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sensor measured.

    Attributes:
        time_ns: Nanoseconds since 1970.
        sensor: Number of the sensor, 0 to 65,535.
        celsius: Temperature.
    """

    time_ns: int
    sensor: int
    celsius: float


class SampleCodec:
    """Samples as 18 bytes: time, sensor and temperature, little-endian."""

    # Recorded on disk: a journal of samples cannot be opened with another codec. Other fields: another name.
    name = "sample1"

    _layout = Struct("<QHd")

    def encode(self, item: Sample, /) -> bytes:
        """Return the bytes; what does not fit raises, and the caller of `append` gets a `CodecError`."""
        return self._layout.pack(item.time_ns, item.sensor, item.celsius)

    def decode(self, data: bytes, /) -> Sample:
        """Return the sample."""
        return Sample(*self._layout.unpack(data))


async def main() -> None:
    """Write samples of two sensors, and read those of one."""
    config = Config(partition="samples", codec=SampleCodec())
    async with await Journal.init(Context(MemoryStorage()), config) as journal:  # a Journal[Sample]
        samples = [Sample(1_700_000_000_000_000_000 + i, sensor=i % 2, celsius=20.5 + i) for i in range(6)]
        await journal.append_many(samples)
        packed, loose = SampleCodec().encode(samples[0]), MsgpackCodec().encode(asdict(samples[0]))
        print(f"{len(loose)} bytes in MessagePack, {len(packed)} packed")

        async for position, sample in journal.replay(0):
            if sample.sensor == 1:
                print(f"position {position}: {sample.celsius} degrees")
        try:
            await journal.append(Sample(0, sensor=65_536, celsius=0.0))
        except CodecError as error:
            print(f"refused: {error}")
        print(f"size {journal.size()}")


if __name__ == "__main__":
    asyncio.run(main())
