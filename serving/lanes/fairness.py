"""Whose turn it is in a lane, and how long anybody has to wait for it.

Callers share a lane by the time that their work takes: the least served goes first, which is start-time fair queueing
(Goyal, Vin and Cheng 1996) with equal weights. However much one caller sends, another's next item waits for at most as
much of everybody else's work as it has had itself, and for what is being computed.

Interactive work goes before work of batch priority. That one ages: it gains a part of the time that interactive work
takes ahead of it, and has its turn when it has gained what it costs. The two never share a batch, so that interactive
items are not computed more slowly for the sake of others.

Of one caller and priority, the kinds of batches take turns, and within a kind the first to come is the first to go.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Priority(enum.Enum):
    """How urgent work is."""

    INTERACTIVE = "interactive"
    """Somebody waits for it."""
    BATCH = "batch"
    """It may wait for what is left."""


@dataclass(frozen=True)
class Flow:
    """What shares are given to: one caller's work of one priority."""

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE


class Queued(Protocol):
    """What waits in a queue."""

    @property
    def flow(self) -> Flow:
        """Whose it is."""

    @property
    def key(self) -> Hashable:
        """Items of the same key may travel together."""

    @property
    def work(self) -> float:
        """How much it is, above 0."""


J = TypeVar("J", bound=Queued)
K = TypeVar("K", bound=Hashable)


class _Shares:
    """Seconds that each caller has had, as far as it matters: while somebody waits."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self.floor = 0.0
        """What the one had had who went last. Who comes anew is counted as having had as much: time in which he did
        not ask for anything is not saved up."""

    def level(self, caller: str) -> float:
        return max(self._served.get(caller, 0.0), self.floor)

    def serve(self, caller: str, seconds: float) -> None:
        self._served[caller] = self.level(caller) + seconds

    def forget(self) -> None:
        self._served.clear()
        self.floor = 0.0


class FairQueue(Generic[J]):
    """Items that could leave, in the order of the callers' shares.

    Args:
        ageing: seconds that batch work gains for each second of interactive work that goes before it, above 0.
        cost: seconds that an item takes when it travels alone.
    """

    def __init__(self, ageing: float, cost: Callable[[J], float]) -> None:
        self._ageing = ageing
        self._cost = cost
        self._waiting: dict[Priority, dict[str, dict[Hashable, deque[J]]]] = {priority: {} for priority in Priority}
        self._shares = {priority: _Shares() for priority in Priority}
        self._gained = 0.0
        """Seconds that batch work has gained and not used; below 0 where a batch took more than it had gained."""
        self._taken: dict[str, float] = {}
        """Seconds by caller of the items taken for the batch that is being filled."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, item: J) -> None:
        """Put an item at the end of its flow's items of its key."""
        keys = self._waiting[item.flow.priority].setdefault(item.flow.caller, {})
        keys.setdefault(item.key, deque()).append(item)
        self._count += 1

    def first(self) -> J | None:
        """The item whose turn it is to lead a batch; None where none waits."""
        urgent, patient = (self._first(priority) for priority in (Priority.INTERACTIVE, Priority.BATCH))
        if urgent is None or patient is None:
            return urgent or patient
        return patient if self._gained >= self._cost(patient) else urgent

    def next_like(self, leader: J) -> J | None:
        """The next item that may travel with this one; None where none waits."""
        shares, callers = self._shares[leader.flow.priority], self._waiting[leader.flow.priority]
        able = (caller for caller, keys in callers.items() if leader.key in keys)
        least = min(able, key=lambda caller: shares.level(caller) + self._taken.get(caller, 0.0), default=None)
        return None if least is None else callers[least][leader.key][0]

    def count_like(self, leader: J) -> int:
        """Items that may travel with this one, itself counted."""
        callers = self._waiting[leader.flow.priority].values()
        return sum(len(keys[leader.key]) for keys in callers if leader.key in keys)

    def drop(self, item: J) -> None:
        """Take out an item that `first` or `next_like` gave; it is not computed."""
        callers = self._waiting[item.flow.priority]
        keys = callers[item.flow.caller]
        keys[item.key].popleft()
        self._count -= 1
        if not keys[item.key]:
            del keys[item.key]
        if not keys:
            del callers[item.flow.caller]

    def take(self, item: J) -> None:
        """Take out an item that `first` or `next_like` gave; it will leave with the next batch."""
        self.drop(item)
        caller = item.flow.caller
        self._taken[caller] = self._taken.get(caller, 0.0) + self._cost(item)

    def depart(self, items: Sequence[J], seconds: float) -> None:
        """Charge a batch to its callers, in proportion to their work.

        Args:
            items: what was taken since the last batch left, in that order.
            seconds: what they are expected to take together.
        """
        leader, work = items[0].flow, sum(item.work for item in items)
        shares, callers = self._shares[leader.priority], self._waiting[leader.priority]
        shares.floor = shares.level(leader.caller)
        self._taken.clear()
        for item in items:
            shares.serve(item.flow.caller, seconds * item.work / work)
        if items[0].key in (keys := callers.get(leader.caller, {})):
            keys[items[0].key] = keys.pop(items[0].key)
        if not callers:
            shares.forget()
        if leader.priority is Priority.INTERACTIVE:
            self._gained += self._ageing * seconds
        elif self._waiting[Priority.INTERACTIVE]:
            self._gained -= seconds
        if not self._waiting[Priority.BATCH]:
            # Who waits gains; who does not wait may only pay back.
            self._gained = min(self._gained, 0.0)

    def ahead(self, flow: Flow, cost: float, queued: Mapping[Flow, float]) -> float:
        """Seconds of others' and its own work that will go before a new item, should no other come.

        Args:
            flow: whose item it is.
            cost: seconds that it takes.
            queued: seconds of work that wait, by flow.
        """
        shares = self._shares[flow.priority]
        own = queued.get(flow, 0.0)
        # The item goes when its caller has had this much; until then each other one catches up.
        until = shares.level(flow.caller) + own + cost
        same = own + sum(
            min(seconds, max(0.0, until - shares.level(other.caller)))
            for other, seconds in queued.items()
            if other.priority is flow.priority and other != flow
        )
        across = sum(seconds for other, seconds in queued.items() if other.priority is not flow.priority)
        if flow.priority is Priority.INTERACTIVE:
            gained = self._gained + self._ageing * same
            return same + min(across, max(0.0, gained))
        return same + min(across, max(0.0, (same + cost - self._gained) / self._ageing))

    def _first(self, priority: Priority) -> J | None:
        callers = self._waiting[priority]
        least = min(callers, key=self._shares[priority].level, default=None)
        return None if least is None else next(iter(callers[least].values()))[0]


class Backlog(Generic[K]):
    """Counts what was admitted and has not left, by flow and key."""

    def __init__(self) -> None:
        self._flows: dict[Flow, dict[K, _Tally]] = {}
        self._keys: dict[K, _Tally] = {}

    def __len__(self) -> int:
        return sum(tally.count for tally in self._keys.values())

    @property
    def flows(self) -> frozenset[Flow]:
        """Whose work is here."""
        return frozenset(self._flows)

    def count(self, flow: Flow) -> int:
        """Items of one flow."""
        return sum(tally.count for tally in self._flows.get(flow, {}).values())

    def add(self, flow: Flow, key: K, work: float) -> None:
        """One item more."""
        for tallies in (self._flows.setdefault(flow, {}), self._keys):
            tallies.setdefault(key, _Tally()).add(1, work)

    def remove(self, flow: Flow, key: K, work: float) -> None:
        """One item less; it was added before with the same values."""
        for tallies in (self._flows[flow], self._keys):
            tallies[key].add(-1, -work)
            if not tallies[key].count:
                del tallies[key]
        if not self._flows[flow]:
            del self._flows[flow]

    def seconds(self, estimate: Callable[[K, int, float], float]) -> dict[Flow, float]:
        """Seconds of work by flow.

        Args:
            estimate: seconds that so many items of a key, with so much work together, take.
        """
        rates = {key: estimate(key, tally.count, tally.work) / tally.work for key, tally in self._keys.items()}
        return {
            flow: sum(tally.work * rates[key] for key, tally in tallies.items())
            for flow, tallies in self._flows.items()
        }


@dataclass
class _Tally:
    count: int = 0
    work: float = 0.0

    def add(self, count: int, work: float) -> None:
        self.count += count
        self.work += work
