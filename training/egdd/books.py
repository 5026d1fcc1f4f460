"""What EGDD's trainer writes down: a row a step, an epoch's figures, and what the run was made from."""

from __future__ import annotations

from dataclasses import dataclass

from training.books import Books
from training.egdd.examples import attributions
from training.egdd.listing import save_classes
from training.egdd.recipe import learning_rates
from training.egdd.state import Run
from training.files import whole
from training.options import save_config

EXAMPLES = 8
"""Validation images whose attributions TensorBoard shows."""


@dataclass(frozen=True)
class Row:
    """A step in steps.csv; two runs that agree in this table agreed in every step."""

    step: int
    """Steps done, this one included."""
    epoch: int
    """1 is the first."""
    loss: float
    """Mean over the step's images, on all processes."""
    lr: float
    """The largest of the groups' learning rates."""
    grad_norm: float
    """Of all gradients together, before clipping."""
    images_per_s: float
    """On all processes together."""


DRAWN = ("loss", "lr", "images_per_s")
"""Columns that are curves, too."""


def note_epoch(books: Books, run: Run) -> None:
    """Note the epoch that was just evaluated."""
    row = run.history[-1]
    books.add(run.done, {f"val/{name}": row[name] for name in ("accuracy", "top5", "loss", "ece")})
    books.add(run.done, {f"lr/{name}": rate for name, rate in learning_rates(run.optimizer).items()})


def note_examples(books: Books, run: Run) -> None:
    """Show where the model looks in a few validation images."""
    with run.serving() as classifier:
        books.show(run.done, "val/attributions", attributions(classifier, run.val, EXAMPLES))


def note_setup(run: Run) -> int:
    """Write down what the run is made from: config.yaml, classes.json, and in skipped.txt the files that are no usable
    image.

    Returns:
        How many these are.

    Raises:
        CheckpointError, DataError: they cannot be written.
    """
    folder = run.config.output_dir
    save_config(run.config, folder / "config.yaml")
    save_classes(run.classifier.config.classes, folder / "classes.json")
    lines = [
        f"{images.listing.root / name}\t{reason}\n"
        for images in (run.train, run.val)
        for name, reason in images.skipped
    ]
    with whole(folder / "skipped.txt") as aside:
        aside.write_text("".join(lines), encoding="utf-8")
    return len(lines)
