"""Import timm and torchvision without torch's compiler: a worker starts in about half the time.

Both libraries import `torch._dynamo` (and with it sympy and the inductor, 6 s of processor time) only to mark
functions that it must not compile, or to ask whether it could. Nothing here is compiled that way. So a
stand-in answers while they are imported; it is gone afterwards, and who needs the real one imports it as ever.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"


def import_vision() -> None:
    """Import torchvision and timm, lean unless the compiler is there already."""
    if _NAME in sys.modules or "timm" in sys.modules:
        return
    stand_in, utils = ModuleType(_NAME), ModuleType(f"{_NAME}.utils")
    stand_in.__dict__.update(utils=utils, disable=_disable)
    utils.__dict__["is_compile_supported"] = lambda device: False
    sys.modules |= {_NAME: stand_in, f"{_NAME}.utils": utils}
    try:
        for name in ("torchvision", "timm"):
            importlib.import_module(name)
    finally:
        for name in (_NAME, f"{_NAME}.utils"):
            del sys.modules[name]


def torch_engine() -> str:
    """torch with its version and the widest vectors that it uses."""
    import torch

    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def hold_threads(threads: int | None) -> None:
    """Renew torch's number of threads, which belongs to the calling thread; None leaves it alone."""
    import torch

    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _disable(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda wrapped: wrapped) if function is None else function
