"""The writer of a journal: the one task that changes its files, and the queue of those who wait for it.

Callers append to memory and wait; everything that reaches the storage goes through `Writer._run`, one step after the
other. That is what makes the order of durable steps a matter of reading one file, `steps.py`, and what makes cancelling
harmless: a cancelled caller stops waiting, and the writer goes on.

The task exists only while there is something to do, so that an idle journal can be collected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from posjournal_async.data import PIECE
from posjournal_async.errors import JournalClosed, JournalFailed, SizeOverflow
from posjournal_async.steps import Steps
from posjournal_async.tail import LARGEST_SIZE
from posjournal_async.turns import let_others_run
from posjournal_async.waiting import Waiters, finished, refuse, resolve, task_of, twin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from posjournal_async.config import Context
    from posjournal_async.parts import Parts
    from posjournal_async.payloads import Run

__all__ = ["Refusal", "Writer"]

# Items and bytes of records appended between two looks at the event loop, in a run that is longer.
_RUN_SLICE = 1024
_RUN_SLICE_BYTES = 2**20

# Bytes of a section that wait for a sync, roughly: then they are synced though nobody asks, while appends go on in
# memory. Otherwise all of a section is flushed when it is full, and appends wait meanwhile for room in the buffer.
_MOST_UNSYNCED = 2**20


@dataclass(slots=True, eq=False)
class _Turn:
    """A call that waits until those before it are done: an append that found no room, or an exclusive operation.

    Attributes:
        result: What the caller waits for.
        run: What to append as soon as there is room for all of it; None for an exclusive operation.
        operation: The exclusive operation.
        is_last: Whether it releases the journal, and so is carried out whatever has happened.
    """

    result: asyncio.Future[Any]
    run: Run | None = None
    operation: Callable[[], Awaitable[Any]] | None = None
    is_last: bool = False

    @property
    def is_withdrawn(self) -> bool:
        """Whether its caller was cancelled before it began: nothing has to happen."""
        return self.run is None and self.operation is None


class Writer:
    """Writes what was appended, commits what somebody waits for, and carries out exclusive operations in turn.

    Attributes:
        durable: Every position below it is durable.
        failure: What made the journal fail, or None.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        context: Context,
        partition: str,
        durable: int,
        on_failure: Callable[[], None],
    ) -> None:
        self._data = parts.data
        self._checkpoint = parts.checkpoint
        self._metrics = context.metrics
        self._label = context.label
        self._partition = partition
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self.durable = durable
        self.failure: BaseException | None = None
        # Until a size is durable, and until it is indexed and vouched for too.
        self._data_waiters = Waiters()
        self._all_waiters = Waiters()
        self._steps = Steps(
            parts,
            context=context,
            on_durable=self._became_durable,
            on_vouched=self._all_waiters.release,
        )
        self._turns: deque[_Turn] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_shut = False
        self._is_over = False
        self._let_in()

    # What callers ask for.

    async def append(self, run: Run) -> int:
        """Append items as one run, waiting for room or for a turn if need be; return the position of the last.

        Sections that this fills are sealed on return.

        Raises:
            SizeOverflow: The journal would be larger than 2**64 - 1 items; nothing was appended.
            JournalFailed: The journal failed before.
        """
        self.check_sound()
        if self._turns or self._is_long(run) or not self._data.has_room_for(run.length):
            last = await self._take_turn(run)
        else:
            last = self._put(run)
            tail = self._data.tail
            if tail.unhanded >= PIECE:
                self._kick()
            if tail.framed == tail.end:  # it was framed for want of room, or is a new one
                await let_others_run()  # a loop of appends that never wait would starve everybody else
        sealed = (last + 1) // self._data.items_per_section * self._data.items_per_section
        if sealed > last + 1 - len(run):
            waiter = self.sealed(sealed)
            if waiter is not None:
                await waiter
        return last

    # The next three are no coroutines: with hundreds of tasks at it, one more for each commit is what they would feel.

    def sealed(self, size: int) -> asyncio.Future[None] | None:
        """Return what to await until the section that ends at `size` is sealed; None if it is, or was discarded."""
        if self._checkpoint.slot.durable >= size or self._data.size < size:
            return None
        if self.failure is not None:
            self.check_sound()
        return self._waiter_for_all(size)

    def data_durable(self) -> asyncio.Future[None] | None:
        """Return what to await until everything appended so far is durable; None if it is."""
        if self.failure is not None:
            self.check_sound()
        size = self._data.size
        if self.durable >= size:
            return None
        # As max() and `Waiters.wait`, without the calls: this is done for each durable append. The size only grows, or
        # nobody waits any more, so that the last to ask wants the most.
        waiters = self._data_waiters
        if size > waiters.wanted:  # noqa: PLR1730
            waiters.wanted = size
        if self._is_over:
            raise JournalClosed(self._partition)
        future = waiters.new_future()
        waiters.waiting.append((size, future))
        if self._task is None:
            self._kick()
        return future

    def all_durable(self) -> asyncio.Future[None] | None:
        """Return what to await until everything appended so far is durable, indexed and vouched for; None if it is."""
        if self.failure is not None:
            self.check_sound()
        size = self._data.size
        if self._checkpoint.slot.durable >= size:
            return None
        self._all_waiters.wanted = max(self._all_waiters.wanted, size)
        return self._waiter_for_all(size)

    async def exclusively(self, operation: Callable[[], Awaitable[Any]], *, is_last: bool = False) -> Any:
        """Carry out an operation with nothing beside it, after everything that came before; return what it returns.

        A caller that is cancelled before the operation begins has cancelled it, unless it is the last.
        """
        if not is_last:
            self.check_sound()
        return await self._wait_for(_Turn(self._loop.create_future(), operation=operation, is_last=is_last))

    def shut(self) -> None:
        """Let nobody append any more without asking, and asking is refused by the journal: it is being closed."""
        self._is_shut = True
        self._let_in()

    def check_sound(self) -> None:
        """Raise what an operation that changes something gets from a journal that failed.

        Raises:
            JournalFailed: It failed.
        """
        if self.failure is not None:
            raise JournalFailed(self._partition, self.failure)

    def fail(self, cause: BaseException) -> None:
        """Refuse everything from now on. Everybody who waits gets the cause, those in the queue that it has failed."""
        # All of it again when it has failed before: an interruption may have struck in here.
        if self.failure is None:
            self.failure = cause
        cause = self.failure
        self._let_in()
        for waiters in (self._data_waiters, self._all_waiters):
            waiters.refuse_all(partial(self._error_of, cause))
        last = [turn for turn in self._turns if turn.is_last]
        for turn in self._turns:
            if not turn.is_last:
                refuse(turn.result, JournalFailed(self._partition, cause))
        self._turns = deque(last)
        self._on_failure()

    # What exclusive operations are made of.

    async def commit_all(self) -> None:
        """Make everything appended durable, indexed, and vouched for by the checkpoint."""
        while self._data.oldest.is_full:
            await self._steps.seal()
        await self._steps.commit_all()

    def discard(self, size: int) -> None:
        """Take back what is durable, and let those go who wait for items from `size` on: there are none any more."""
        self.durable = size
        for waiters in (self._data_waiters, self._all_waiters):
            waiters.wanted = min(waiters.wanted, size)
            waiters.let_all_go()

    # The task.

    def _kick(self) -> None:
        if self._task is None:
            self._task = task_of(self._run(), f"posjournal writer of {self._partition}")
            self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Do what there is to do, then end.

        Each pass does at most one commit and one exclusive operation, so neither keeps the other waiting for ever.
        """
        while self._has_work():
            try:
                await self._pass()
            except Exception as error:  # noqa: BLE001 - it is latched, and given to everybody it concerns
                self.fail(error)
            except asyncio.CancelledError:
                # The lock is free when this task ends with its event loop: nothing may land in a file after that.
                self.fail(asyncio.CancelledError())
                await finished(task_of(self._steps.come_to_rest()))
                raise
            if not self._has_work():
                await asyncio.sleep(0)  # whoever was waiting may append at once, and needs no new task for it
        if self._is_over:
            for waiters in (self._data_waiters, self._all_waiters):
                waiters.refuse_all(partial(JournalClosed, self._partition))
        self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail if the task did not end by itself: it was interrupted, or the event loop is being torn down.

        Here and not in the task, so that there is no line of it at which an interruption goes unseen: what is on disk
        is for recovery to say.
        """
        if task.cancelled():
            cause: BaseException | None = asyncio.CancelledError()
        else:
            cause = task.exception()
        if cause is None:
            return
        self._task = None
        self.fail(cause)
        for turn in self._turns:
            refuse(turn.result, JournalFailed(self._partition, cause))
        self._turns.clear()

    def _has_work(self) -> bool:
        if self._turns:
            return True
        if self._is_over:
            return False  # the files are closed, and may be somebody else's
        return self.failure is None and self._next_step(is_room_wanted=False) is not None

    async def _pass(self) -> None:
        if self.failure is None and not self._is_over:
            step = self._next_step(is_room_wanted=self._is_room_wanted())
            if step is not None:
                await step()
            await self._admit()
        if self._turns and self._turns[0].operation is not None:
            await self._carry_out(self._turns[0])
        self._let_in()

    def _next_step(self, *, is_room_wanted: bool) -> Callable[[], Awaitable[None]] | None:
        """Return what has to be written or committed first; None if nothing has."""
        oldest = self._data.oldest
        if oldest.is_full:
            return self._steps.seal
        if self._all_waiters.wanted > self._checkpoint.slot.durable:
            return self._steps.commit_all
        if self._data_waiters.wanted > self.durable:
            return self._steps.commit_data
        if oldest.unhanded >= PIECE or is_room_wanted:
            return self._steps.commit_data if oldest.unsynced >= _MOST_UNSYNCED else self._steps.write
        return None

    def _is_room_wanted(self) -> bool:
        """Whether the first in the queue is an append that does not fit beside what waits to be written."""
        turn = self._turns[0] if self._turns else None
        return turn is not None and turn.run is not None and not self._data.has_room_for(turn.run.length)

    async def _carry_out(self, turn: _Turn) -> None:
        """Carry out the operation at the head of the queue, where it stays meanwhile so that nothing slips in."""
        assert turn.operation is not None
        try:
            resolve(turn.result, await turn.operation())
        except Refusal as refusal:
            refuse(turn.result, refusal.error)
        except BaseException as error:
            refuse(turn.result, self._error_of(error))
            raise
        finally:
            self._is_over = turn.is_last
            if self._turns and self._turns[0] is turn:
                self._turns.popleft()

    # Appends.

    def _put(self, run: Run) -> int:
        size = self._data.size + len(run)
        if size > LARGEST_SIZE:
            raise SizeOverflow(size)
        try:
            last = self._data.append_run(run)
            if self._data.oldest.is_full:
                self._kick()
            self._let_in()
        except BaseException as error:
            self.fail(error)  # half a record may be in the buffer
            raise
        return last

    async def _admit(self) -> None:
        """Let appends in that wait, in their order, as far as there is room."""
        while self._turns:
            turn = self._turns[0]
            if not turn.is_withdrawn:  # else it takes no position, or does not begin
                if turn.run is None or not self._data.has_room_for(turn.run.length):
                    return
                try:
                    resolve(turn.result, self._put(turn.run))
                except SizeOverflow as overflow:
                    refuse(turn.result, overflow)
                except BaseException as error:
                    refuse(turn.result, self._error_of(error))
                    raise
            self._turns.popleft()
            if self._turns and self._data.tail.framed == self._data.tail.end:
                await let_others_run()  # as in `append`: there may be room for a whole buffer of them

    def _is_long(self, run: Run) -> bool:
        """Whether a run is too long to be appended in one go: it would hold up the event loop, or the buffer."""
        most = min(_RUN_SLICE_BYTES, self._data.write_buffer)
        return len(run) > _RUN_SLICE or (run.length > most and len(run) > 1)

    async def _append_long(self, run: Run) -> int:
        """Append a run that is too long for one go, slice by slice; it becomes visible as a whole."""
        size = self._data.size + len(run)
        if size > LARGEST_SIZE:
            raise Refusal(SizeOverflow(size))
        last = -1
        self._data.hold_size()
        try:
            for part in run.parts(_RUN_SLICE, min(_RUN_SLICE_BYTES, self._data.write_buffer)):
                # Also for those who wait for what came before: all of a long run may take long.
                while step := self._next_step(is_room_wanted=not self._data.has_room_for(part.length)):
                    await step()
                last = self._put(part)
                await let_others_run()
        finally:
            self._data.show_size()
        return last

    async def _take_turn(self, run: Run) -> int:
        if self._is_long(run):
            last: int = await self.exclusively(lambda: self._append_long(run))
            return last
        position: int = await self._wait_for(_Turn(self._loop.create_future(), run))
        return position

    async def _wait_for(self, turn: _Turn) -> Any:
        """Put a turn into the queue and return what comes of it; an interruption withdraws it, as cancelling does."""
        try:
            self._turns.append(turn)
            self._let_in()
            self._kick()
            return await turn.result
        except BaseException:
            turn.result.cancel()
            if not turn.is_last:  # it stays in the queue until those before it are done, and without its payloads
                turn.run = turn.operation = None
            raise

    def _let_in(self) -> None:
        """Let appends go ahead without asking, unless there is a reason why they have to ask."""
        self._data.let_in(is_open=not (self._turns or self._is_shut or self.failure is not None))

    # Waiting.

    def _error_of(self, cause: BaseException) -> Exception:
        """Return what a waiter gets.

        An error of its own, since one that many tasks raise would collect their tracebacks. A cancellation or an
        interruption of the writer is not one of the waiter.
        """
        if isinstance(cause, Exception):
            twin = twin_of(cause)
            if twin is not cause:  # else it is of a class that makes no copies; nobody must be forgotten for that
                return twin
        return JournalFailed(self._partition, cause)

    def _waiter_for_all(self, size: int) -> asyncio.Future[None]:
        if self._is_over:
            raise JournalClosed(self._partition)
        future = self._all_waiters.wait(size)
        if self._task is None:
            self._kick()
        return future

    def _became_durable(self, size: int) -> None:
        self._metrics.count("commits", 1, self._label)
        self._metrics.count("items_committed", size - self.durable, self._label)
        self.durable = size
        released = self._data_waiters.release(size)
        self._metrics.observe("commit_waiters", released, self._label)


class Refusal(Exception):
    """An exclusive operation refused before it changed anything: the journal is as it was.

    Attributes:
        error: What its caller gets.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error
