"""Workers on Ray: started, given tasks, watched, and replaced when they die.

The loop is `ray.wait`. `ray.util.ActorPool` does not do here: it cannot say whose task it was that failed, and
it loses an actor with each death. Nor does Ray restart the actors: what is sent to one that restarts fails at once,
so that a single death would count against many shards, and its memory of what it was made with goes with a node.
A worker that is gone is replaced by a new one, which gets its first task when it is ready, on whatever node has room.

Only task descriptors go out and small reports come back, so the object store stays empty and the driver's
memory flat.
"""

import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmfilter.errors import MMFilterError

from . import beat, resting, stopping
from .cluster import Shape, Width, machines, settle
from .driver import ATTEMPTS, Crash, Make, Setup, Short
from .stopping import held_back
from .terminal import print

TICK = 2.0  # seconds between two looks at what brings no news of itself
SLICE_S = 0.2  # after so long a wait for Ray looks whether a signal has arrived
HEAD = 45.0  # seconds that the head may be silent; after 60 Ray ends the process without a word of ours
LOSSES = 10  # nodes that may be lost under one task before it is held against the task
SAY = 60.0  # seconds without a worker, after which it is said what is waited for
GO_ON = "The same command goes on from here"


@dataclass(eq=False)
class Hand:
    """One worker: its actor, the node it is on, and the tasks it has (number -> when it was sent)."""

    actor: Any
    node: str = ""
    ready: bool = False
    alone: bool = False  # it has a task that is suspected, and gets no other beside it
    flying: dict[int, float] = field(default_factory=dict)


class Crew:
    """The workers of a job, and its tasks by number: waiting, suspected (to be done alone), or flying."""

    def __init__(self, ray: Any, tasks: Sequence[Any], make: Make, width: Width) -> None:
        self.ray, self.tasks, self.width = ray, tasks, width
        self.shape = shape = self._shape()
        self.setup = Setup(shape.device, shape.threads, shape.batch_size, shape.own, shape.decoder_cpus)
        self.make = ray.put(make)  # once, and not once a worker: it may hold a whole subset
        self.wanted, self.fewer = shape.workers, 0  # as machines allow; less where their memory does not
        self.kind = resting.Kind(resting.connection(), shape.cpus, shape.gpus, shape.lanes)
        self.rested = resting.take(self.kind, self.wanted)
        self.hands: list[Hand] = []
        self.calls: dict[Any, tuple[Hand, int | None]] = {}  # Ray's reference -> whose; None: whether it is ready
        self.queue, self.suspects = deque(range(len(tasks))), deque[int]()
        self.left = len(tasks)
        self.lost: Counter[int] = Counter()
        self.failed_starts, self.started, self.recruits = 0, False, 0.0  # in a row; any ever; not before
        self.looked = self.heard = self.staffed = time.monotonic()
        self.said = False

    def _shape(self) -> Shape:
        return settle(self.width, len(self.tasks), machines(self.ray))

    def results(self) -> Iterator[tuple[int, Any]]:
        """(number, result or Crash) as they finish, each task once.

        Raises MMFilterError when a worker cannot load what it needs, or the head is lost.
        """
        try:
            while self.left:
                with held_back():
                    self._recruit()
                    self._hand_out()
                    news = [*self._hear(), *self._look()]
                for number, result in news:
                    self.left -= 1
                    yield number, result
            with held_back():
                self._to_rest()
        finally:
            with held_back():
                for actor in [*self.rested, *(hand.actor for hand in self.hands)]:
                    self.ray.kill(actor)

    def _to_rest(self) -> None:
        well = [*self.rested, *(hand.actor for hand in self.hands if hand.ready)]
        self.rested, self.hands = [], [hand for hand in self.hands if not hand.ready]
        resting.keep(self.kind, well)

    def _recruit(self) -> None:
        if time.monotonic() < self.recruits:
            return
        for hand in [hand for hand in self.hands[self.wanted - self.fewer :] if not hand.flying]:
            self._dismiss(hand)
        for _ in range(min(self.wanted - self.fewer, self.left) - len(self.hands)):
            hand = Hand(self.rested.pop() if self.rested else resting.start(self.kind))
            self.hands.append(hand)
            self.calls[hand.actor.begin.remote(self.make, self.setup)] = hand, None

    def _hand_out(self) -> None:
        """Tasks to the workers that are ready. More than one at a time only while there are enough for all."""
        for depth in range(self.shape.lanes):
            for hand in self.hands[: self.wanted - self.fewer]:
                if not hand.ready or hand.alone or len(hand.flying) > depth:
                    continue
                if self.queue and (not depth or len(self.queue) >= len(self.hands)):
                    self._send(hand, self.queue.popleft())
                elif self.suspects and not hand.flying:
                    hand.alone = True
                    self._send(hand, self.suspects.popleft())

    def _send(self, hand: Hand, number: int) -> None:
        hand.flying[number] = time.monotonic()
        beat.sent(self.tasks[number])
        self.calls[hand.actor.run.remote(self.tasks[number])] = hand, number

    def _hear(self) -> Iterator[tuple[int, Any]]:
        """What comes back next, if anything does within a tick."""
        from ray.exceptions import RayError

        for reference in self._wait():
            hand, number = self.calls.pop(reference)
            try:
                answer = self.ray.get(reference)
            except RayError as error:
                if hand in self.hands:
                    yield from self._bury(hand, error)
                continue
            if hand not in self.hands:  # it is given up, and its tasks are elsewhere
                continue
            if number is None:
                self._welcome(hand, *answer)
            else:
                was_alone, hand.alone = hand.alone, False
                del hand.flying[number]
                if isinstance(answer, Short) and not (was_alone and self.wanted - self.fewer == 1):
                    self._narrow(str(answer.error), (self.wanted - self.fewer + 1) // 2)
                    self.suspects.append(number)
                else:
                    yield number, answer

    def _wait(self) -> list[Any]:
        """The next call that is done, if any is within a tick; none once a signal has arrived."""
        done: list[Any] = []
        until = time.monotonic() + TICK
        while not done and not stopping.pending() and time.monotonic() < until:
            if self.calls:
                done, _ = self.ray.wait(list(self.calls), num_returns=1, timeout=SLICE_S)
            else:
                time.sleep(SLICE_S)
        return done

    def _welcome(self, hand: Hand, refusal: MMFilterError | None, node: str) -> None:
        if refusal is not None:
            raise refusal
        hand.ready, hand.node = True, node
        self.failed_starts, self.started = 0, True

    def _dismiss(self, hand: Hand) -> None:
        self.hands.remove(hand)
        self.ray.kill(hand.actor)  # it may be alive, and only out of reach

    def _bury(self, hand: Hand, error: Exception) -> Iterator[tuple[int, Crash]]:
        """A worker died. What a node's end takes with it is begun again and not counted. Of several tasks at once
        nobody knows whose fault it was: each is done again, alone. So is one whose machine ran short of memory, and
        with one worker less: the others may have used it up.
        """
        from ray.exceptions import OutOfMemoryError

        self._dismiss(hand)
        with_node = self._lost_with_node(hand, error)
        short = isinstance(error, OutOfMemoryError) and not hand.alone
        if not hand.ready and not with_node:
            self._failed_start(error)
        if short:
            self._narrow(why(error), 1)
        for number in hand.flying:
            if with_node:
                self.lost[number] += 1
                if self.lost[number] % LOSSES:
                    self.queue.append(number)
                else:
                    yield number, Crash(f"its worker's node was lost, {LOSSES} times")
            elif len(hand.flying) > 1 or short:
                self.suspects.append(number)
            else:
                yield number, Crash(f"its worker died ({type(error).__name__}): {why(error)}")

    def _narrow(self, told: str, by: int) -> None:
        """Go on with so many workers less, if they are not the last."""
        before, self.fewer = self.fewer, min(self.fewer + by, self.wanted - 1)
        self.recruits = time.monotonic() + TICK  # the memory of the one that was killed comes back first
        left = f"; {self.wanted - self.fewer} of {self.wanted} workers go on" if self.fewer > before else ""
        print(f"mmfilter: {told}{left}", file=sys.stderr)

    def _lost_with_node(self, hand: Hand, error: Exception) -> bool:
        from ray.exceptions import ActorUnavailableError, NodeDiedError

        if isinstance(error, (ActorUnavailableError, NodeDiedError)):
            return True
        if not hand.node:  # before it could say where it was
            return "node has died" in str(error)
        return hand.node not in {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}

    def _failed_start(self, error: Exception) -> None:
        """Tried again, with pauses, since one that was killed says nothing of the next, while others are at work or
        for a few times; but not where making the first of them raised an error: it would again.
        """
        from ray.exceptions import RayTaskError

        self.failed_starts += 1
        raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)
        hopeless = raised and not self.started
        if hopeless or (self.failed_starts >= ATTEMPTS and not any(hand.ready for hand in self.hands)):
            raise MMFilterError(f"a worker could not start: {why(error)}") from error
        print(f"mmfilter: a worker could not start, another is tried: {why(error)}", file=sys.stderr)
        self.recruits = time.monotonic() + min(2.0**self.failed_starts, SAY)

    def _look(self) -> Iterator[tuple[int, Crash]]:
        """Once a tick: is the head there, does a worker hang, have nodes come, is anybody at work at all?"""
        now = time.monotonic()
        if now - self.looked < TICK:
            return
        self.looked = now
        if not head_answers(self.ray.get_runtime_context().gcs_address):
            if now - self.heard > HEAD:
                raise MMFilterError(f"the head of the Ray cluster is lost: no answer for {HEAD:.0f} s. {GO_ON}")
            return
        self.heard = now
        if self.width.address is not None:
            self.wanted = max(self.wanted, self._shape().workers)
        if any(hand.ready for hand in self.hands):
            self.staffed = now
        self._say_who_is_missing(now - self.staffed)
        yield from self._give_up_the_hung(now)

    def _say_who_is_missing(self, seconds: float) -> None:
        room = f"{self.shape.cpus:g} CPUs" + (f" and {self.shape.gpus} GPU" if self.shape.gpus else "")
        if seconds > SAY and not self.said:
            self.said = True
            print(f"mmfilter: no worker is there; each waits for a machine with {room} free", file=sys.stderr)

    def _give_up_the_hung(self, now: float) -> Iterator[tuple[int, Crash]]:
        """The worker of a task that is overdue is killed; tasks that it had beside it begin again, uncounted."""
        limit = beat.overdue(self.width.patience)
        for hand in list(self.hands):
            late = {number for number, since in hand.flying.items() if now - since > limit}
            if late:
                self._dismiss(hand)
                self.queue.extend(number for number in hand.flying if number not in late)
                for number in late:
                    yield number, Crash(f"its worker hung: nothing came back for {limit:.0f} s (--patience)")


def why(error: Exception) -> str:
    """The line of one of Ray's errors that says what happened."""
    from ray.exceptions import OutOfMemoryError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OutOfMemoryError):
        return lines[0]
    return f"{lines[-1]}{' (is mmfilter installed on every node?)' if 'ModuleNotFoundError' in lines[-1] else ''}"


def head_answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TICK).close()
    except OSError:
        return False
    return True
