"""How TorchServe is started: its files, command line and environment, and what its logs say of a failure."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saaa import wire
from saaa.errors import StartFailed

LOAD_FAILED = "saaa cannot load the model: "
"""How `handlers.base` begins the line that says why a worker does not start."""
_HOST = "127.0.0.1"
_ROOM = 64 * 1024
_LONGEST_FOLDER = 80
"""TorchServe puts Unix sockets into the run folder; their paths may have 107 characters."""
_OWN_VARIABLES = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|TEMP|TMP|TMPDIR|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS")
_ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*")
_BIND_FAILED = re.compile(r"Failed to bind|Address already in use|BindException")

WORKER_NICE = 5
"""Added to the workers' niceness: who takes requests in and refuses them goes before who computes."""

_LOG_CONFIG = """\
<Configuration status="error">
  <Appenders>
    <RollingFile name="server" fileName="{logs}/server.log" filePattern="{logs}/server.%i.log">
      <PatternLayout pattern="%d{{ISO8601}} %-5p %t %c - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
    <RollingFile name="workers" fileName="{logs}/workers.log" filePattern="{logs}/workers.%i.log">
      <RegexFilter regex="Backend received inference.*" onMatch="DENY" onMismatch="NEUTRAL"/>
      <PatternLayout pattern="%d{{ISO8601}} %t - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="workers"/></Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="warn"><AppenderRef ref="server"/></Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TorchServe's five ports."""

    inference: int
    """gRPC."""
    management: int
    """gRPC."""
    rest: int
    """HTTP inference: `curl -T photo.jpg http://127.0.0.1:PORT/predictions/NAME/VERSION`."""
    rest_management: int
    """HTTP."""
    metrics: int
    """HTTP."""

    @classmethod
    def free(cls, inference: int | None = None) -> Ports:
        """Pick ports that are free now, management next to inference as in TorchServe's defaults.

        Somebody else may still be faster: then Java ends, and one tries again.

        Args:
            inference: this one, and the next for management, free or not; None picks them, too.
        """
        with contextlib.ExitStack() as held:

            def hold(number: int) -> int:
                each = held.enter_context(socket.socket())
                each.bind((_HOST, number))
                return int(each.getsockname()[1])

            while inference is None:
                first = hold(0)
                with contextlib.suppress(OSError, OverflowError):
                    hold(first + 1)
                    inference = first
            return cls(
                inference=inference,
                management=inference + 1,
                rest=hold(0),
                rest_management=hold(0),
                metrics=hold(0),
            )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything that one start of TorchServe needs, inside one run folder."""

    folder: Path
    """Private and absolute; nobody else uses it."""
    java: Path
    ports: Ports
    threads: int
    """torch's threads in each worker."""
    heap_mb: int
    """Largest Java heap."""
    host: str = _HOST
    """Where gRPC listens; HTTP is always on loopback."""
    shared: Path | None = None
    """A folder of archives that is the model store, so that whoever manages models can name what is in it; None is a
    store of links inside the run folder."""

    def prepare(self, archives: Sequence[Path]) -> None:
        """Write the files; what an earlier start left in the folder is replaced.

        Args:
            archives: what to serve.

        Raises:
            StartFailed: the folder's path is too long.
        """
        if len(str(self.folder)) > _LONGEST_FOLDER:
            raise StartFailed(f"The path of the temporary folder {self.folder} is too long for sockets; set TMPDIR.")
        for name in ("logs", "store", "tmp"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        for link in (self.folder / "store").iterdir():
            link.unlink()
        for index, path in enumerate(archives):
            # By its own name in a shared store, where the link only says that it is to be served from the start.
            self.link(path, path.name if self.shared else f"{index}.mar")
        logs = self.folder / "logs"
        for path in self.logs():
            path.unlink(missing_ok=True)
        (self.folder / "log4j2.xml").write_text(_LOG_CONFIG.format(logs=logs))
        (self.folder / "config.properties").write_text(_properties(self.settings()))

    def link(self, path: Path, name: str) -> Path:
        """Put an archive into TorchServe's model store under a name; what had it is replaced."""
        link = self.folder / "store" / name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        return link

    def settings(self) -> dict[str, object]:
        """TorchServe's settings: closed to everybody but this machine, and to every archive but ours."""
        ports, limit = self.ports, wire.MAX_MESSAGE_BYTES + _ROOM
        return {
            "inference_address": f"http://127.0.0.1:{ports.rest}",
            "management_address": f"http://127.0.0.1:{ports.rest_management}",
            "metrics_address": f"http://127.0.0.1:{ports.metrics}",
            "grpc_inference_address": self.host,
            "grpc_inference_port": ports.inference,
            "grpc_management_address": self.host,
            "grpc_management_port": ports.management,
            "disable_token_authorization": "true",
            # Versions are loaded and unloaded while it runs; only from its own store, only from this machine.
            "enable_model_api": "true",
            "allowed_urls": "https://nothing-is-allowed[.]invalid/",
            "install_py_dep_per_model": "false",
            "enable_envvars_config": "false",
            "disable_system_metrics": "true",
            "default_workers_per_model": 1,
            "max_request_size": limit,
            "max_response_size": limit,
        }

    def command(self) -> list[str]:
        """The Java command line, as `torchserve` would build it; `folder` is its working directory."""
        home = torchserve_home()
        served = self.folder / "store"
        return [
            str(self.java),
            f"-Djava.io.tmpdir={self.folder}/tmp",
            f"-Dmodel_server_home={home}",
            f"-Dlog4j.configurationFile=file://{self.folder}/log4j2.xml",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            # Java only passes messages on: over some hundred batches its first compiler alone cost a third less time.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-cp",
            f"{home}/ts/frontend/*",
            "org.pytorch.serve.ModelServer",
            "--python",
            sys.executable,
            "-f",
            f"{self.folder}/config.properties",
            "-s",
            str(self.shared or served),
            "-w",
            str(self.shared or served),
            "-ncs",
            "-m",
            *sorted(link.name for link in served.iterdir()),
        ]

    def environment(self) -> dict[str, str]:
        """The environment of Java and the workers: ours, less what steers TorchServe past its settings."""
        kept = {key: value for key, value in os.environ.items() if not _OWN_VARIABLES.fullmatch(key)}
        return kept | {
            "TEMP": f"{self.folder}/tmp",
            "TMPDIR": f"{self.folder}/tmp",
            "LOG_LOCATION": f"{self.folder}/logs",
            "METRICS_LOCATION": f"{self.folder}/logs",
            "OMP_NUM_THREADS": str(self.threads),
            "SAAA_MAX_RESPONSE_BYTES": str(wire.MAX_MESSAGE_BYTES),
            "SAAA_WORKER_NICE": str(WORKER_NICE),
        }

    def logs(self) -> tuple[Path, ...]:
        """Files with what Java, TorchServe and the workers say."""
        return tuple(self.folder / "logs" / name for name in ("java.log", "server.log", "workers.log"))

    def load_failure(self) -> str:
        """Why a worker failed to load its model, the last time one did; "" while none did."""
        lines = _lines(self.logs()[2:])
        for line in reversed(lines):
            if LOAD_FAILED in line:
                return line.partition(LOAD_FAILED)[2]
        if any("Backend worker process died" in line or "Load model failed" in line for line in lines):
            return _last_error(lines) or "its worker process died"
        return ""

    def failure(self) -> str:
        """The most telling line of all logs, for people."""
        return self.load_failure() or _last_error(_lines(self.logs())) or "its log says nothing"

    def port_taken(self) -> bool:
        """Whether Java could not have one of its ports."""
        return any(_BIND_FAILED.search(line) for line in _lines(self.logs()))


def torchserve_home() -> Path:
    """The folder that holds the package `ts` of TorchServe.

    Raises:
        StartFailed: TorchServe is not installed.
    """
    spec = importlib.util.find_spec("ts")
    home = Path(spec.origin).parent.parent if spec and spec.origin else None
    if home is None or not (home / "ts" / "frontend" / "model-server.jar").is_file():
        raise StartFailed("TorchServe is not installed; install saaa[torchserve] or use --backend local.")
    return home


def _properties(settings: dict[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _lines(paths: Iterable[Path]) -> list[str]:
    lines = []
    for path in paths:
        if path.is_file():
            lines += path.read_text(errors="replace").splitlines()
    return lines


def _last_error(lines: list[str]) -> str:
    """The last line that names an error: in a traceback, that is what was raised."""
    for line in reversed(lines):
        said = line.rpartition(" - ")[2].strip()
        if _ERROR_LINE.match(said):
            return said
    return ""
