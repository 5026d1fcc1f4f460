"""A Label Studio server of our own: on loopback, with private data and generated credentials, gone when we are.

In its folder, which only its owner may read:

credentials.json    email and password to log in with, token for the API
data/               its database
label-studio.log    what it printed
ready               it has answered once
server.json         port of the running one
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from saaa.errors import StartFailed
from training.annotation.studio_client import Refused, StudioClient, Unreachable
from training.annotation.studio_install import last_lines
from training.files import whole, write_json
from training.stopping import Stop

HOST = "127.0.0.1"
START_S = 900.0
"""The first start makes a database, which takes minutes on a busy machine."""
STOP_S = 10.0
_LOOK_S = 0.2
_CREDENTIALS, _SERVER, _READY, _LOG, _DATA = "credentials.json", "server.json", "ready", "label-studio.log", "data"

# Runs in Label Studio's Python. Its standard input is a pipe that we hold: it ends when we do, even if we are killed.
_BOOTSTRAP = """
import os, signal, sys, threading
def end():
    while os.read(0, 1):
        pass
    threading.Timer(5, os._exit, [0]).start()
    os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=end, daemon=True).start()
from label_studio.server import main
sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Of the one user that is made."""

    email: str = "annotator@localhost"
    password: str = field(repr=False)
    token: str = field(repr=False)


class StudioServer:
    """Label Studio for one folder of tasks, as a context manager that starts and stops it.

    Args:
        python: of its environment.
        folder: its own, made when absent.
        pictures_root: the folder under which it may serve pictures.
        port: to listen on; 0 picks a free one.
        stop: ends waiting for it to start.

    Raises:
        StartFailed: (on entering) the port is taken, or it does not start.
        KeyboardInterrupt: (on entering) stopped.
    """

    def __init__(self, python: Path, folder: Path, pictures_root: Path, *, port: int, stop: Stop) -> None:
        self._python, self._stop = python.absolute(), stop  # absolute: it works in a folder of its own
        self._folder, self._root = folder.resolve(), pictures_root.resolve()
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.credentials: Credentials

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return _url(self._port)

    @property
    def client(self) -> StudioClient:
        """Its API, as its one user."""
        return StudioClient(self.url, self.credentials.token)

    @property
    def ready(self) -> bool:
        """Whether it has ever answered."""
        return (self._folder / _READY).exists()

    def ended(self) -> str | None:
        """Why it has ended by itself; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"Label Studio has ended: {last_lines(self._folder / _LOG, 3)}. {self._folder / _LOG} has more."

    def __enter__(self) -> Self:
        self._port = _free_port(self._port)
        try:
            self._start()
        except OSError as error:
            raise StartFailed(f"Label Studio cannot be started: {error.filename}: {error.strerror}.") from error
        try:
            self._wait()
            (self._folder / _READY).touch()
            write_json(self._folder / _SERVER, {"port": self._port})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._folder / _SERVER).unlink(missing_ok=True)
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        data = self._folder / _DATA
        if not self.ready:
            # A first start that was cut short has left a part of a database, and nobody's work.
            shutil.rmtree(data, ignore_errors=True)
            (self._folder / _CREDENTIALS).unlink(missing_ok=True)
        data.mkdir(exist_ok=True)
        self.credentials = _credentials(self._folder / _CREDENTIALS)
        words = ["start", "--no-browser", "--internal-host", HOST, "--port", str(self._port), "--log-level", "WARNING"]
        with (self._folder / _LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-c", _BOOTSTRAP, *words, "--enable-legacy-api-token"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=data,
                env=self._environment(data),
                start_new_session=True,
            )

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while True:
            if self._stop:
                raise KeyboardInterrupt("stopped before Label Studio was ready")
            if why := self.ended():
                raise StartFailed(why)
            try:
                self.client.who()
                return
            except Unreachable:
                pass
            except Refused as error:
                # It looks for a free port by itself when another program took ours meanwhile.
                raise StartFailed(f"Another program answers at {self.url}; give another --port.") from error
            if time.monotonic() > end:
                raise StartFailed(f"Label Studio did not answer within {START_S:.0f} s; see {self._folder / _LOG}.")
            time.sleep(_LOOK_S)

    def _environment(self, data: Path) -> dict[str, str]:
        """Nothing of ours but where programs are: many of its settings are read from plain names such as HOST."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ") if name in os.environ}
        settings = {
            "BASE_DATA_DIR": str(data),
            "USERNAME": self.credentials.email,
            "PASSWORD": self.credentials.password,
            "USER_TOKEN": self.credentials.token,
            "LOCAL_FILES_SERVING_ENABLED": "true",
            "LOCAL_FILES_DOCUMENT_ROOT": str(self._root),
            "ALLOWED_HOSTS": f"{HOST},localhost",
            "DISABLE_SIGNUP_WITHOUT_LINK": "true",
            # Nothing leaves this machine.
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
        }
        return {**kept, "HOME": str(data), **{f"LABEL_STUDIO_{name}": value for name, value in settings.items()}}


def running(folder: Path) -> StudioClient:
    """The API of the server that another process runs in a folder.

    Raises:
        StartFailed: it does not answer, or not yet.
    """
    try:
        port = int(json.loads((folder / _SERVER).read_text(encoding="utf-8"))["port"])
        client = StudioClient(_url(port), _credentials(folder / _CREDENTIALS).token)
        client.who()
        return client
    except (OSError, ValueError, KeyError, TypeError, Refused, Unreachable) as error:
        raise StartFailed("Another process is starting or stopping Label Studio for these tasks; try again.") from error


def _credentials(path: Path) -> Credentials:
    if not path.exists():
        made = Credentials(password=secrets.token_urlsafe(12), token=secrets.token_hex(20))
        with whole(path) as aside:
            aside.touch(mode=0o600)
            aside.write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
        return made
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(**{name: str(found[name]) for name in ("email", "password", "token")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartFailed(f"{path} does not hold the credentials any more: {error!r}.") from error


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        # As the server does: connections of an earlier one that still linger are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StartFailed(
                f"Port {port} of {HOST} cannot be had ({error.strerror}); give another --port, or 0 for any free one."
            ) from error
        return int(probe.getsockname()[1])
