"""The kit that tries every crash, fault and cancellation on the journal, for services built on it too.

Needs pytest and pytest-asyncio: `pip install posjournal_async[testing]`.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "posjournal_async.testing needs the extra \"testing\": pip install 'posjournal_async[testing]'", name="pytest"
    ) from error

# Before the import: a failed `assert` of the suite then shows its values, as one in a test file does.
pytest.register_assert_rewrite("posjournal_async.testing.storage_contract")

from posjournal_async.testing.crash import CrashStorage, Luck, PowerCut  # noqa: E402 - see above
from posjournal_async.testing.faults import FaultyStorage  # noqa: E402
from posjournal_async.testing.gates import GatedStorage  # noqa: E402
from posjournal_async.testing.interleaving import Deadlock, SeededLoop, run_interleaved  # noqa: E402
from posjournal_async.testing.monitor import OrderingMonitor, OrderingViolation  # noqa: E402
from posjournal_async.testing.points import crash_points  # noqa: E402
from posjournal_async.testing.recording import Event, RecordingStorage  # noqa: E402
from posjournal_async.testing.storage_contract import StorageContract  # noqa: E402
from posjournal_async.testing.suspensions import StrikeAt  # noqa: E402
from posjournal_async.testing.wrapping import Call, WrappedStorage  # noqa: E402

__all__ = [
    "Call",
    "CrashStorage",
    "Deadlock",
    "Event",
    "FaultyStorage",
    "GatedStorage",
    "Luck",
    "OrderingMonitor",
    "OrderingViolation",
    "PowerCut",
    "RecordingStorage",
    "SeededLoop",
    "StorageContract",
    "StrikeAt",
    "WrappedStorage",
    "crash_points",
    "run_interleaved",
]
