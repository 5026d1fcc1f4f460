"""What is outside of a pod: a PostgreSQL, the secrets that an operator makes, callers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from saaa.client import Analysis, Client, RelevanceRating, RpcFailed, tls
from serving.ratings.export import read_ratings
from tests.deploy.kubelet import Pod, Secrets
from tests.serving.pixel_backend import photo
from tests.serving.security.secured import write_server


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Of one overlay."""

    ratings: Path | str
    """Where they are kept: a file on a claim, or a URL."""
    secrets: Secrets = field(default_factory=dict)
    client: Callable[[str], Client] = Client
    """Of an address."""


def of_dev(claims: Path) -> Outside:
    """Plain text, and a file on a claim."""
    return Outside(ratings=claims / "saaa-state" / "ratings" / "ratings.db")


def of_prod(folder: Path, url: str) -> Outside:
    """TLS, a token, and PostgreSQL; the secrets are made as deploy/README.md says."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate, key = write_server(folder, authority)
    words = ("tokens", "create", str(folder / "tokens.json"), "--name", "kiosk", "--scopes", "analyze", "feedback")
    made = subprocess.run(
        [sys.executable, "-m", "serving.commands.cli", *words], capture_output=True, text=True, check=True
    )
    (folder / "kiosk.token").write_text(made.stdout.strip())
    return Outside(
        ratings=url,
        secrets={
            "saaa-tls": {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()},
            "saaa-tokens": {"tokens.json": (folder / "tokens.json").read_bytes()},
            "saaa-ratings": {"url": url.encode(), "password": b"asked for by no test's server"},
        },
        client=lambda address: Client(address, credentials=tls(folder / "ca.pem"), token=folder / "kiosk.token"),
    )


@contextlib.contextmanager
def postgresql(port: int) -> Iterator[str]:
    """The URL of an empty database, in a server on a port of loopback."""
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL's binaries are not installed")
    from pgserver import _commands

    folder = Path(tempfile.mkdtemp(prefix="saaa-pg-"))  # a short path: it holds a socket
    server: Any = pgserver.get_server(folder / "data", cleanup_mode=None)
    pg_ctl: Any = vars(_commands)["pg_ctl"]  # made when the package is imported

    def control(*words: str) -> None:
        pg_ctl(["-w", *words], pgdata=server.pgdata, user=server.system_user)

    try:
        # As it comes it listens on the socket only.
        control("restart", "-m", "fast", "-l", str(server.pgdata / "log"), "-o", f"-h 127.0.0.1 -p {port}")
        url = f"postgresql://postgres@127.0.0.1:{port}"
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE saaa")
        yield f"{url}/saaa"
    finally:
        control("stop", "-m", "immediate")
        shutil.rmtree(folder)


class Rater:
    """Rates one analysis again and again, until the service refuses or is gone; a context manager.

    Args:
        client: to rate with.
        analysis: that was shown.
        name: of this rater, in the ratings' ids.
    """

    def __init__(self, client: Client, analysis: Analysis, name: str) -> None:
        self.acknowledged: list[str] = []
        """The ids of the ratings that the service has promised to keep."""
        self._client, self._analysis, self._name = client, analysis, name
        self._thread = threading.Thread(target=self._rate)

    def __enter__(self) -> Rater:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Until so many are acknowledged."""
        while len(self.acknowledged) < count:
            assert self._thread.is_alive(), "ratings are refused"
            time.sleep(0.05)

    def _rate(self) -> None:
        answer = RelevanceRating(content_type="object", content_description="a lamp", relevance=4.5)
        with contextlib.suppress(RpcFailed):
            while True:
                kept = self._client.record_rating(
                    self._analysis,
                    answer,
                    attribution=self._analysis.attributions[0],
                    request_id=f"{self._name}-{len(self.acknowledged)}",
                )
                self.acknowledged.append(kept.request_id)


def analysed(client: Client) -> Analysis:
    """All that the two tiny models can say of a photo."""
    analysis = client.analyze(photo(), outputs=["predictions", "attributions", "captions"], timeout=60)
    assert analysis.predictions
    assert analysis.attributions
    assert analysis.captions
    return analysis


def replaced(make: Callable[[], Pod], outside: Outside) -> list[tuple[Pod, float]]:
    """A pod is ended by the kubelet, its replacement is lost with its node: people rate all the time, and no rating
    that was acknowledged is lost.

    Returns:
        The pods, and the seconds that the end took.
    """
    acknowledged, pods = [], []
    for name in ("ended", "killed"):
        with make() as pod, outside.client(pod.address(50051)) as client:
            with Rater(client, analysed(client), name) as rater:
                rater.wait_for(3)
                assert pod.probe("facade", "livenessProbe")
                seconds = pod.end() if name == "ended" else 0.0
                pod.kill()
            # The Java runtime's own file about itself is not TorchServe's to remove.
            left = [path.name for path in pod.ends.glob("torchserve-work/*") if not path.name.startswith("hsperfdata")]
            assert not (seconds and left), left
        acknowledged += rater.acknowledged
        pods.append((pod, seconds))
    kept = [rating["request_id"] for rating in read_ratings(outside.ratings)]
    assert set(acknowledged) <= set(kept), set(acknowledged) - set(kept)
    # One more may have been kept whose answer did not arrive.
    assert len(kept) <= len(acknowledged) + len(pods)
    return pods
