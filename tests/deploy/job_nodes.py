"""The pods of an Indexed Job as processes in network namespaces of this machine, each with an address and a host name
of its own, joined by a virtual cable.

/etc/hosts stands in for the headless Service's names; a shell loop for the Job controller: who fails is made anew.
Images and the kubelet are not part of this. Needs `unshare` and `ip`, no rights: everything is in a user namespace.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.check.manifests import Object
from deploy.check.tools import ROOT

NAMESPACE = "saaa-dev"
_ADDRESS = "10.77.0.{}"
_TRIES = 4
_NODE = """
until ip link show pod{index} > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add {address}/24 dev pod{index}
ip link set pod{index} up
hostname {host}
mount --bind {hosts} /etc/hosts
echo $$ > {folder}/pod{index}.pid
for try in $(seq {tries}); do
    {command} >> {folder}/pod{index}.log 2>&1 && exit 0
    echo "pod {index}: try $try failed" >> {folder}/tries
done
exit 1
"""
_CABLE = """
ip link add pod0 type veth peer name pod1
unshare --net --uts --mount sh {folder}/pod1.sh &
second=$!
until [ "$(readlink /proc/$second/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link set pod1 netns $second
unshare --uts --mount sh {folder}/pod0.sh &
wait $! && wait $second
"""


def namespaces_needed() -> None:
    """Skip the test where namespaces cannot be made."""
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", "ip", "link", "set", "lo", "up"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        pytest.skip(f"no unshare: {error}")
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")


class Nodes:
    """The two pods of a Job at work.

    Args:
        folder: where they write their logs.
        process: the one that holds both.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._folder, self._process = folder, process

    def done(self, longest_s: float = 600) -> None:
        """Wait for the end of the Job.

        Raises:
            AssertionError: it failed.
        """
        code = self._process.wait(longest_s)
        assert code == 0, self.log()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def failed_pods(self) -> int:
        """How often a pod failed and was made anew."""
        file = self._folder / "tries"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def log(self) -> str:
        """The end of what both said."""
        return "\n".join(path.read_text()[-4000:] for path in sorted(self._folder.glob("pod*.log")))

    def kill(self, index: int, *, torchrun: bool) -> None:
        """SIGKILL for a pod's training process, or for its torchrun and all below it."""
        (agent,) = _children(int((self._folder / f"pod{index}.pid").read_text()))
        workers = _children(agent)
        assert workers, "there is nobody to kill"
        for pid in [agent, *workers] if torchrun else workers:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def nodes(job: Object, folder: Path, mounted: Mapping[str, Path], *, threads: int = 1) -> Iterator[Nodes]:
    """Start the pods of a Job of two; whatever still runs at the end is killed.

    Args:
        job: the manifest, as it is rendered.
        folder: where logs go, new.
        mounted: what stands in for a file or folder of the container.
        threads: OMP_NUM_THREADS, in place of the manifest's.
    """
    folder.mkdir()
    name, spec = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    (container,) = spec["containers"]
    own = {"JOB_NAME": name, "NAMESPACE": NAMESPACE}
    program = [str(Path(sys.executable).with_name(word)) for word in container["command"]]
    command = shlex.join([*program, *(_here(word, own, mounted) for word in container["args"])])
    domain = f"{spec['subdomain']}.{NAMESPACE}.svc.cluster.local"
    lines = [f"{_ADDRESS.format(i + 1)} {name}-{i}.{domain} {name}-{i}\n" for i in range(2)]
    for index in range(2):
        hosts = folder / f"hosts{index}"
        # A pod's own name comes first, as the kubelet writes it.
        hosts.write_text("".join(["127.0.0.1 localhost\n", lines[index], lines[1 - index]]))
        script = _NODE.format(
            index=index, address=_ADDRESS.format(index + 1), host=f"{name}-{index}", hosts=shlex.quote(str(hosts)),
            folder=shlex.quote(str(folder)), tries=_TRIES, command=command,
        )  # fmt: skip
        (folder / f"pod{index}.sh").write_text(script)
    environment = {**os.environ, **own, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", _CABLE.format(folder=folder)],
        cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield Nodes(folder, process)
    finally:
        for pid in reversed(_below(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _here(word: str, own: Mapping[str, str], mounted: Mapping[str, Path]) -> str:
    """An argument as the kubelet expands it, with this machine's files."""
    word = re.sub(r"\$\((\w+)\)", lambda found: own[found[1]], word)
    return str(mounted.get(word, word))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for child in _children(pid):
        found += [child, *_below(child)]
    return found


def wait_for(what: Any, running: Nodes, longest_s: float = 300) -> None:
    """Wait until something is so, while the Job runs."""
    end = time.monotonic() + longest_s
    while not what():
        assert running.running, running.log()
        assert time.monotonic() < end, running.log()
        time.sleep(0.02)
