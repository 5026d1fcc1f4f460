"""What a trained network is worth on val, measured by the trainer and written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.models.classifier import Classifier
from training.distributed import World
from training.egdd.config import EgddConfig
from training.egdd.data import Images
from training.egdd.evaluation import predict, write_failures
from training.egdd.measures import failures, measure
from training.egdd.pictures import write_pictures
from training.files import write_json


@dataclass(frozen=True)
class Outcome:
    """An evaluation."""

    report: dict[str, Any]
    """See `measure`."""
    wrong: list[dict[str, Any]]
    """See `failures`."""


def judge(classifier: Classifier, val: Images, config: EgddConfig, world: World, *, show: bool = False) -> Outcome:
    """Measure a classifier; all processes must call it and get the same.

    Args:
        classifier: in evaluation mode, the same on all processes.
        val: the validation images.
        config: under --dist_eval the processes share the work, else the main one does it.
        world: the processes.
        show: a progress bar.

    Raises:
        CheckpointError: an output is not finite.
    """

    def judged(by: World) -> Outcome:
        found = predict(
            classifier, val, batch_size=config.batch_size, world=by, num_workers=config.num_workers, show=show
        )
        classes = classifier.config.classes
        files = [val.listing.place(i) for i in range(len(val))]
        return Outcome(measure(found.logits, val.labels, classes), failures(found.logits, val.labels, files, classes))

    return judged(world) if config.dist_eval else world.first(lambda: judged(World(device=world.device)))


def write_outcome(outcome: Outcome, metrics: dict[str, Any], folder: Path) -> None:
    """Write metrics.json, the pictures of `write_pictures` and failures.csv.

    Raises:
        DataError: they cannot be written.
    """
    write_json(folder / "metrics.json", metrics)
    write_pictures(outcome.report, folder)
    write_failures(folder / "failures.csv", outcome.wrong)
