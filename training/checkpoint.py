"""Checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from saaa.errors import CheckpointError

FORMAT = 1
LAST, BEST = "last.pt", "best.pt"
"""Where a run keeps what it goes on from, and the best model so far."""


def save_checkpoint(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write a checkpoint aside, then rename it: a crash or a full disk leaves the previous one as it was.

    Args:
        path: the file; its folder must exist.
        kind: what it is a checkpoint of, "egdd" or "ega".
        content: tensors, numbers, strings, lists and dicts of these.

    Raises:
        CheckpointError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as file:
            torch.save({"format": FORMAT, "kind": kind, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        # torch's own error on a full disk says nothing of it; the one that it came from does.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = getattr(cause, "strerror", None) or cause
        raise CheckpointError(f"Cannot write the checkpoint {path}: {reason}") from error


def to_continue(folder: Path, resume: Path | None, *, go_on: bool) -> Path | None:
    """The checkpoint that a run continues from; None where it begins anew.

    Args:
        folder: where the run writes.
        resume: the one that was named, if any.
        go_on: whether to take `folder`'s LAST where there is one.
    """
    if go_on and (folder / LAST).is_file():
        return folder / LAST
    return resume


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint that `save_checkpoint` wrote, onto the CPU.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one of another kind or format.
    """
    content = read_content(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("kind") != kind:
        found = content.get("kind") if isinstance(content, dict) else None
        raise CheckpointError(
            f"{path} is not a checkpoint of `saaa-train {kind}`"
            + (f", but of `saaa-train {found}`." if isinstance(found, str) and found != kind else ".")
        )
    return content


def read_content(path: Path) -> Any:
    """Read what `torch.save` wrote, ours or not, onto the CPU; nothing in the file is executed.

    Tensors, plain values and `argparse.Namespace` are read (many training scripts keep their options in one); a file
    that holds anything else is refused.

    Raises:
        CheckpointError: no such file, unreadable, or it holds anything else.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint {path}.") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it holds {refused[1]}, which is neither weights nor a plain value; nothing of it was run"
            if refused
            else (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        )
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}.") from error
