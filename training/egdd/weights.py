"""Initial weights from elsewhere: checkpoints of MAE, of timm and of our own, and archives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import clean_state_dict
from torch import Tensor, nn

from saaa import archive as archives
from saaa.errors import CheckpointError
from saaa.models.classifier import Classifier
from saaa.work import ModelKind
from training.checkpoint import read_content
from training.pretrained import heads, renew_head

State = dict[str, Tensor]
PRETRAINING = ("decoder_", "mask_token")
"""How the keys begin that only MAE's pretraining needs."""
FINAL_NORMS = ("norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias")
"""A vision transformer has one of the two norms: the first under class-token, the second under mean pooling."""
NAMED = 6
"""Keys that a message names."""


@dataclass(frozen=True)
class Loaded:
    """What became of the weights of a file; as a string, a line for the user."""

    path: Path
    taken: int
    """Tensors that the network took."""
    missing: tuple[str, ...]
    """Keys of the network that the file does not have, or not of these classes; they are new."""
    unexpected: tuple[str, ...]
    """Keys of the file that the network did not take."""
    resampled: tuple[int, int] | None
    """The position embedding's grid in the file and in the network, in patches a side, where they differ."""

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.taken} tensors taken"]
        if self.missing:
            parts.append(f"new: {_grouped(self.missing)}")
        if self.unexpected:
            parts.append(f"left out: {_grouped(self.unexpected)}")
        if self.resampled is not None:
            parts.append(f"position embedding resampled from {self.resampled[0]} to {self.resampled[1]} patches a side")
        return "; ".join(parts)


def load_initial(classifier: Classifier, path: Path, *, whole: bool = False) -> Loaded:
    """Put the weights of a file into a new classifier.

    As MAE's fine-tuning script does: the decoder and the mask token of pretraining are left out; so is the final norm
    where the pooling differs; a position embedding of another grid is resampled (bicubic, not antialiased). The head is
    taken when it is for as many classes, and for the same ones where the file names them; else it is new, see
    `training.pretrained.renew_head`. (MAE's script renews the head always.)

    Args:
        classifier: its weights change; random state is drawn for a new head only.
        path: an MAE or timm checkpoint, or one of `saaa-train egdd`; .safetensors; or an archive (.mar).
        whole: demand every weight, the head too, as evaluation needs.

    Raises:
        CheckpointError: unreadable, or keys or shapes do not fit for another reason than those above.
        ArchiveError: the archive is missing or damaged.
    """
    state, classes = read_weights(path)
    return put_in(classifier, state, path, classes=classes, whole=whole)


def put_in(
    classifier: Classifier, state: State, path: Path, *, classes: tuple[str, ...] | None = None, whole: bool = False
) -> Loaded:
    """Put weights that were read from `path` into a classifier, see `load_initial`.

    Args:
        classes: those that the weights' head is for, where they are known.
    """
    net, config = classifier.net, classifier.config
    state = dict(state)
    own: State = net.state_dict()
    keys = state.keys()
    resampled = _resample(net, state)
    head = {f"{name}.{part}" for name in heads(net) for part in ("weight", "bias")} & own.keys()
    new = set() if _same_head(own, state, head) and classes in (None, config.classes) else head
    if new and whole:
        raise CheckpointError(
            f"{path} has no head for the {len(config.classes)} classes {_named(config.classes)}"
            + (f"; it is for {_named(classes)}." if classes else ".")
        )
    missing, unexpected = (own.keys() - keys) | new, (keys - own.keys()) | (keys & new)
    if not whole:
        new = new | _other_norm(own.keys(), keys)
    lacks = sorted(missing - new)
    strange = sorted(key for key in unexpected - new if not key.startswith(PRETRAINING))
    if lacks or strange:
        gap = [f"lack {_named(lacks)}"] * bool(lacks) + [f"hold {_named(strange)} besides"] * bool(strange)
        raise CheckpointError(
            f"The weights of {path} are not those of {config.architecture}: they {' and '.join(gap)}. Name the --model "
            "and the pooling that they are of."
        )
    taken = {key: state[key] for key in own if key not in missing}
    wrong = [f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}" for k, v in taken.items() if v.shape != own[k].shape]
    if wrong:
        raise CheckpointError(f"The weights of {path} do not fit {config.architecture}: {_named(wrong)}.")
    net.load_state_dict(taken, strict=False)
    if head <= missing:
        renew_head(net)
    return Loaded(path, len(taken), tuple(sorted(missing)), tuple(sorted(unexpected)), resampled)


def _same_head(own: State, state: State, head: set[str]) -> bool:
    return all(key in state and state[key].shape == own[key].shape for key in head)


def _other_norm(own: Collection[str], given: Collection[str]) -> set[str]:
    """The keys of both final norms when the network has the one and the file the other."""
    ours, theirs = ({key for key in FINAL_NORMS if key in keys} for keys in (own, given))
    return ours | theirs if ours and theirs and not ours & theirs else set()


def read_weights(path: Path) -> tuple[State, tuple[str, ...] | None]:
    """Read the weights of a file, and the names of its classes where it has them; see `load_initial` for the kinds.

    Raises:
        CheckpointError, ArchiveError: unreadable, or it holds no weights of an image classifier.
    """
    if path.suffix == ".mar":
        archive = archives.read(path)
        if archive.kind is not ModelKind.EGDD:
            raise CheckpointError(f"{path} holds a model of kind {archive.kind.value}, not an image classifier.")
        return {key: torch.tensor(value) for key, value in archive.tensors.items()}, tuple(archive.config["classes"])
    if path.suffix == ".safetensors":
        try:
            return load_file(path), None
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    content = read_content(path)
    return state_of(content, path), _classes_of(content)


def state_of(content: Any, path: Path) -> State:
    """Find the weights in a checkpoint: under "model" (MAE and ours), where timm puts them (its moving average first),
    or the checkpoint itself. Prefixes of DDP and of torch.compile go.

    Raises:
        CheckpointError: there are none.
    """
    if isinstance(content, dict):
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f'{path} holds no weights: neither "model" nor "state_dict", nor tensors alone.')
    return clean_state_dict(content)


def _classes_of(content: Any) -> tuple[str, ...] | None:
    """The class names in a checkpoint of `saaa-train egdd`."""
    settings = content.get("classifier") if isinstance(content, dict) else None
    return tuple(settings["classes"]) if isinstance(settings, dict) and "classes" in settings else None


def _resample(net: nn.Module, state: State) -> tuple[int, int] | None:
    """Bring the position embedding in `state` to the network's grid; give both grids, None where nothing was done."""
    own, given = getattr(net, "pos_embed", None), state.get("pos_embed")
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if own is None or given is None or grid is None or own.ndim != 3 or own.shape == given.shape:
        return None
    prefix = own.shape[1] - math.prod(grid)
    side = math.isqrt(max(0, given.shape[1] - prefix))
    if given.shape[1] != side * side + prefix or side == 0:
        return None  # not a square: the shapes will be refused
    state["pos_embed"] = resample_abs_pos_embed(given, list(grid), num_prefix_tokens=prefix, antialias=False)
    return side, grid[0]


def _grouped(keys: Iterable[str]) -> str:
    """Keys by their first part, with counts: "decoder_blocks (96), mask_token (1)"."""
    return ", ".join(f"{part} ({count})" for part, count in sorted(Counter(key.split(".")[0] for key in keys).items()))


def _named(words: Iterable[str]) -> str:
    """The first few of a list, and how many more there are."""
    every = list(words)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more
