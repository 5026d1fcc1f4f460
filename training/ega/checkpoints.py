"""The captioner of a checkpoint that the trainer wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from saaa.errors import CheckpointError, SaaaError
from saaa.models.captioner import Captioner, CaptionerConfig, Vocabulary
from saaa.models.features import FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from training.checkpoint import load_checkpoint
from training.ega.standard import Standard


def load_guided(
    path: Path, bring: Callable[[CaptionerConfig], FeatureExtractor] | None = None
) -> tuple[GuidedCaptioner, dict[str, Any]]:
    """The captioner of a checkpoint (BEST or LAST) and the checkpoint's content.

    Args:
        path: the checkpoint.
        bring: for a checkpoint that was trained on features of unknown origin: gives what makes them, before it
            standardises.

    Raises:
        CheckpointError: it cannot be read or does not describe a captioner, or not exactly one of checkpoint and
            caller brings a backbone.
    """
    content = load_checkpoint(path, "ega")
    try:
        own = content["features"]
        if own is None and bring is None:
            raise CheckpointError(
                f"{path} was trained on features that nobody knows how to make of an image; bring a backbone: "
                "`saaa-train archive ega --backbone WEIGHTS`."
            )
        if own is not None and bring is not None:
            raise CheckpointError(f"{path} holds its own backbone; leave --backbone out.")
        captioner, vocabulary = _captioner(content)
        if bring is None:
            extractor = FeatureExtractor.described(own)
            extractor.load_state_dict(part(content["weights"], "features."))
        else:
            extractor = bring(captioner.config)
            Standard(**content["standard"]).give(extractor)
        guided = GuidedCaptioner(extractor, captioner, vocabulary)
    except CheckpointError:
        raise
    except (KeyError, TypeError, RuntimeError, SaaaError) as error:
        raise CheckpointError(f"{path} does not describe a usable captioner: {error}") from error
    return guided.requires_grad_(False), content


def load_captioner(path: Path) -> tuple[Captioner, Vocabulary, Standard]:
    """The captioner of a checkpoint (BEST or LAST) without its backbone: for features that are there already, and what
    these are to be standardised by.

    Raises:
        CheckpointError: it cannot be read or does not describe a captioner.
    """
    content = load_checkpoint(path, "ega")
    try:
        captioner, vocabulary = _captioner(content)
        return captioner.eval().requires_grad_(False), vocabulary, Standard(**content["standard"])
    except (KeyError, TypeError, RuntimeError, SaaaError) as error:
        raise CheckpointError(f"{path} does not describe a usable captioner: {error}") from error


def _captioner(content: dict[str, Any]) -> tuple[Captioner, Vocabulary]:
    captioner = Captioner(CaptionerConfig(**content["captioner"]))
    captioner.load_state_dict(part(content["weights"], "captioner."))
    return captioner, Vocabulary(tuple(content["vocabulary"]))


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, without that beginning."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
