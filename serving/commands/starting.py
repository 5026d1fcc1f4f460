"""`saaa up` and `saaa serve` as they are typed: the facade's settings are their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from serving.backends.process import TorchServeOptions
from serving.commands.config import to_yaml, with_file
from serving.commands.run import run_serve, run_up
from serving.settings import FacadeSettings

Facade = Annotated[FacadeSettings, tyro.conf.arg(name="")]
TorchServe = Annotated[TorchServeOptions, tyro.conf.arg(name="")]
ConfigFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
_FACADE, _TORCHSERVE = FacadeSettings(), TorchServeOptions()


def up(
    *,
    models: Path,
    backend: Literal["torchserve", "local"] = "torchserve",
    config: ConfigFile = None,
    print_config: Switch = False,
    facade: Facade = _FACADE,
    torchserve: TorchServe = _TORCHSERVE,
) -> int:
    """Serve all archives of a folder: starts the backend and the service, until it is told to stop.

    Args:
        models: folder with model archives (.mar).
        backend: "torchserve" starts TorchServe beside the service; "local" computes in this process.
        config: take options from this file; those given here override it.
        print_config: print all options as such a file, without passwords, and do nothing else.
        facade: the service.
        torchserve: how to run TorchServe.
    """
    if print_config:
        return _print({"models": models, "backend": backend}, facade, torchserve)
    return run_up(models, facade, torchserve=torchserve if backend == "torchserve" else None)


def serve(
    *,
    backend_address: str,
    management_address: str | None = None,
    models: Path | None = None,
    workers: int = 1,
    config: ConfigFile = None,
    print_config: Switch = False,
    facade: Facade = _FACADE,
) -> int:
    """Serve in front of a TorchServe that runs already; it may come and go.

    Args:
        backend_address: HOST:PORT of TorchServe's gRPC inference API.
        management_address: HOST:PORT of its gRPC management API; the inference port + 1 unless given.
        models: TorchServe's model store as seen from here; its `models.yaml` is followed, for which TorchServe must
            allow models to be managed (`enable_model_api=true`).
        workers: worker processes of a version that is loaded from there.
        config: take options from this file; those given here override it.
        print_config: print all options as such a file, without passwords, and do nothing else.
        facade: the service.
    """
    if print_config:
        place = {"backend_address": backend_address, "management_address": management_address}
        return _print({**place, "models": models, "workers": workers}, facade)
    return run_serve(backend_address, management_address, facade, models=models, workers=workers)


COMMANDS: dict[str, Callable[..., int]] = {"up": up, "serve": serve}


def run(command: str, words: Sequence[str]) -> int:
    """Run one of `COMMANDS`.

    Args:
        command: its name.
        words: what was typed after it.

    Returns:
        The exit code.
    """
    code: int = tyro.cli(COMMANDS[command], args=with_file(words), prog=f"saaa {command}", use_underscores=True)
    return code


def _print(*parts: object) -> int:
    print(to_yaml(*parts), end="", flush=True)
    return 0
