"""What is to be explained of each image, from the words of `--targets`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saaa.errors import DataError, OptionInvalid
from saaa.work import ModelInfo, ModelKind
from training.attribute.data import Item


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The targets of every item of a run."""

    top: int = 0
    """Explain so many of the most probable classes."""
    true: bool = False
    """Explain the class that the data give."""
    classes: tuple[int, ...] = ()
    """Explain these classes."""
    words: bool = False
    """Explain every word of the caption."""
    nodes: bool = False
    """Explain every node of the graph."""


def read_targets(text: str | None, model: ModelInfo) -> Wanted:
    """Read the option.

    Raises:
        OptionInvalid: not a target of this kind of model.
    """
    if model.kind is ModelKind.EGA:
        parts = set((text or "words").split(","))
        if not parts <= {"words", "nodes"}:
            raise OptionInvalid(
                f"targets is {text!r}; of a captioner choose words, nodes or words,nodes.", field="targets"
            )
        return Wanted(words="words" in parts, nodes="nodes" in parts)
    if text in (None, "predicted"):
        return Wanted(top=1)
    assert text is not None
    if text == "true":
        return Wanted(true=True)
    if (number := re.fullmatch(r"top(\d+)", text)) is not None and text not in model.classes:
        count = int(number[1])
        if not 1 <= count <= len(model.classes):
            raise OptionInvalid(
                f"targets is {text!r}; the model has {len(model.classes)} classes, choose top1 to "
                f"top{len(model.classes)}.",
                field="targets",
            )
        return Wanted(top=count)
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in model.classes]:
        raise OptionInvalid(
            f"targets: {model.name} has no class {unknown[0]!r}; choose predicted, true, top2 (or another number), or "
            f"among its classes {', '.join(model.classes)}.",
            field="targets",
        )
    return Wanted(classes=tuple(model.classes.index(name) for name in names))


def check_labels(wanted: Wanted, items: Sequence[Item]) -> None:
    """Refuse to explain true classes that the data do not give.

    Raises:
        DataError: an item has no class.
    """
    if wanted.true and (unlabelled := [item.file for item in items if item.label is None]):
        raise DataError(
            f"--targets true needs images in folders named after the model's classes; {len(unlabelled)} of "
            f"{len(items)} are not, {unlabelled[0]} for instance."
        )
