"""A server's processes, whoever started which: their processor time, memory, descriptors, and their end.

A server is marked by a variable of its environment that all its processes inherit, so none escapes by leaving the
process tree (Ray, BentoML and TorchServe's workers do).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MARK = "SERVING_SERVER"
PROGRAMS = {"facade": "saaa", "java": "org.pytorch.serve.ModelServer", "workers": "model_service_worker.py"}
"""Who a process of `saaa up` is, and the word of its command line that tells; the first such word counts."""
OTHER = "other"
"""Whoever else: the guard, and helpers that soon end."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """One command and all that it starts.

    Args:
        command: what to run.
        environment: added to ours.
        log: file for what it says.
        pipes: whether to talk to it by its standard input and output.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, pipes: bool = False
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._known: set[int] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as file:
            self.root = subprocess.Popen(
                list(command),
                env=os.environ | environment | {MARK: self._mark},
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else file,
                stderr=file,
                text=True if pipes else None,
                start_new_session=True,
            )

    def look(self) -> set[int]:
        """The processes that live now; a process that is about to exec is seen at the next look."""
        entry = f"{MARK}={self._mark}".encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) not in self._known:
                with contextlib.suppress(OSError):
                    if entry in (folder / "environ").read_bytes().split(b"\0"):
                        self._known.add(int(folder.name))
        self._known = {pid for pid in self._known if Path(f"/proc/{pid}").exists()}
        return self._known

    def seconds(self) -> float:
        """Processor time, user and system, of all of them and of what they waited for."""
        return sum(sum(_stat(pid)[11:15]) for pid in self.look()) / _TICKS

    def programs(self) -> dict[str, int]:
        """How many of them run which program."""
        names = Counter[str]()
        for pid in self.look():
            with contextlib.suppress(OSError):
                names[Path(f"/proc/{pid}/comm").read_text().strip()] += 1
        return dict(names)

    def memory(self) -> int:
        """Bytes of memory: proportional set sizes together."""
        return sum(memory_of(self.look()).values())

    def descriptors(self) -> int:
        """Open files, sockets and pipes."""
        count = 0
        for pid in self.look():
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        return count

    def pause(self) -> None:
        """Let it do nothing until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._signal(signal.SIGCONT)

    def stop(self, patience_s: float = 30.0) -> None:
        """Ask it to end, then end what is left."""
        self.look()
        self.go_on()
        if self.root.poll() is None:
            self.root.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.root.wait(patience_s)
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while self.look() and time.monotonic() < deadline:
            time.sleep(0.1)
        for pipe in (self.root.stdin, self.root.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.root.wait(5)

    def last_words(self) -> str:
        """The end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def _signal(self, number: int) -> None:
        for pid in self.look():
            with contextlib.suppress(OSError):
                os.kill(pid, number)


def memory_of(pids: Iterable[int]) -> dict[str, int]:
    """Bytes of memory of each of `PROGRAMS` and of all others: proportional set sizes, 0 where none runs.

    A page that several processes share counts in parts for each, so the sum is what all of them together take.
    """
    found = dict.fromkeys((*PROGRAMS, OTHER), 0)
    names = {word: name for name, word in PROGRAMS.items()}
    for pid in pids:
        told = (names[word] for word in (Path(part).name for part in _command(pid)) if word in names)
        found[next(told, OTHER)] += _pss(pid)
    return found


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/PID/stat from the third field on (11 to 14: user, system, and those of dead children)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [0] * 15
    return [int(field) if field.lstrip("-").isdigit() else 0 for field in fields]


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
