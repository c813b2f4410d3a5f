"""Items to bytes and back: the `Codec` protocol and the codecs that need no other package.

`codecs.msgspec`, `codecs.pydantic` and `codecs.protobuf` hold those for typed items. Each needs the extra of its name,
and is imported by nobody but its users.
"""

from posjournal_async.codecs.plain import BytesCodec, JsonCodec, MsgpackCodec
from posjournal_async.codecs.protocols import Codec, ReadsOlder

__all__ = ["BytesCodec", "Codec", "JsonCodec", "MsgpackCodec", "ReadsOlder"]
