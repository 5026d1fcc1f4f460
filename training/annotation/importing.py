"""People's answers in, and what they say out.

ratings.jsonl          every rating that counts, a line each
model_asg.json         what the model attends to in each image, with relevance
human_asg.json         what people say it should attend to: region JSON by image and region
difficulty.json, .csv  each image's difficulty, the hardest first, with its objects
concepts.json          the valid and the confounded set of each class
relevance.json         ratings of caption words as `saaa-train ega --relevance` takes them
annotators.json        agreement and bias
problems.jsonl         each record that was repaired or set aside, and why
report.txt             all of it in short
annotations/           with --annotations: <split>_opt, the split without its hard instances
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saaa.annotations import Answers, Rating, model_asgs, read_answers
from saaa.annotations.content import ARTICLES, clean
from saaa.difficulty import Concept, Difficulty, concepts, estimate
from saaa.errors import DataError
from training.annotation.agreement import agreement
from training.annotation.config import ImportConfig
from training.annotation.export import image_id, open_run
from training.annotation.optimised import Instances, write_split
from training.ega.published import AnnotationFolder
from training.files import whole, write_json

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAMED = 20
"""Concepts and images that the report names."""


def import_answers(config: ImportConfig) -> dict[str, Any]:
    """Read the answers and write what they say; print the report.

    Returns:
        The counts of the report.

    Raises:
        DataError: a file cannot be read or written, or not one rating or graph counts.
        OptionInvalid: an option is outside its range.
    """
    answers = read_answers(config.answers, int(config.max_mb * 2**20))
    _write_lines(config.out / "problems.jsonl", (asdict(problem) for problem in answers.problems))
    if not answers.ratings and not answers.rationales:
        first = f" The first: {answers.problems[0].reason}." if answers.problems else ""
        raise DataError(f"Not one of {answers.records} records counts.{first} {config.out}/problems.jsonl lists all.")
    if config.run is not None:
        answers = _linked(answers, config.run)
    instances = None if config.annotations is None else Instances.of(AnnotationFolder(config.annotations))
    difficulty = estimate(answers.ratings, config.difficulty())
    found = concepts(answers.ratings)
    agreed = agreement(answers.ratings)
    relevance, unplaced = _relevance(answers.ratings, instances)
    _write_lines(config.out / "ratings.jsonl", (rating.to_json() for rating in answers.ratings))
    write_json(config.out / "model_asg.json", {"graphs": [asg.to_json() for asg in model_asgs(answers.ratings)]})
    write_json(config.out / "human_asg.json", _human(answers))
    _write_difficulty(config.out, difficulty, config)
    write_json(config.out / "concepts.json", {word: [c.to_json() for c in those] for word, those in found.items()})
    write_json(config.out / "relevance.json", relevance)
    write_json(config.out / "annotators.json", agreed)
    counts = _counts(answers, difficulty, unplaced)
    if config.annotations is not None:
        hard = {(i.image, i.region) for i in difficulty.instances if i.hard}
        counts["split"] = write_split(config.annotations, config.split, hard, config.out / "annotations")
    report = _report(counts, answers, difficulty, found, agreed)
    _write(config.out / "report.txt", report)
    write_json(config.out / "report.json", counts)
    print(report, end="")
    print(f"{config.out}: problems.jsonl names every record repaired or set aside")
    return counts


def _linked(answers: Answers, run: Path) -> Answers:
    """Ratings of images known by their digest, as ratings of the run's images."""
    _, records = open_run(run)
    names = {record["sha256"]: image_id(record) for record in records if record["sha256"]}

    def linked(rating: Rating) -> Rating:
        unit = rating.unit
        if _DIGEST.fullmatch(unit.image) is None or unit.image not in names:
            return rating
        return replace(rating, unit=replace(unit, image=names[unit.image]))

    rationales = tuple(replace(graph, image=names.get(graph.image, graph.image)) for graph in answers.rationales)
    return replace(answers, ratings=tuple(map(linked, answers.ratings)), rationales=rationales)


def _relevance(
    ratings: Sequence[Rating], instances: Instances | None
) -> tuple[dict[str, dict[str, list[dict[str, Any]]]], int]:
    """Ratings of caption words in the format of `training.ega.relevance`, and how many have no region or word there.

    A position is one of the model's own caption, not of what people said of the region, so ratings go by the word: the
    prompt word where it is known, else the words of what was named.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    unplaced = 0
    for rating in ratings:
        unit, content = rating.unit, rating.content
        if unit.target == "class":
            continue
        names = unit.word or (content.subject if content.predicate is None else content.predicate) or ""
        words = [word for word in names.lower().split() if word not in ARTICLES]
        regions = [unit.region] if unit.region is not None else instances.regions(unit.image) if instances else []
        if not words or not regions:
            unplaced += 1
            continue
        kind = "" if rating.stated is None else rating.stated.name.lower()
        image = instances.id(unit.image) if instances else unit.image
        for region in regions:
            answers = [{"word": word, "type": kind, "rating": rating.rating} for word in words]
            found.setdefault(image, {}).setdefault(region, []).extend(answers)
    return found, unplaced


def _human(answers: Answers) -> dict[str, Any]:
    """Graphs by image, region ("" where none was named) and annotator, in the published region format."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for given in answers.rationales:
        region = {"id": given.id, "annotator": given.annotator, **given.graph.to_region()}
        found.setdefault(given.image, {}).setdefault(given.region or "", []).append(region)
    return found


def _write_difficulty(out: Path, difficulty: Difficulty, config: ImportConfig) -> None:
    options = asdict(config.difficulty())
    head = {"object_threshold": difficulty.object_threshold, "instance_threshold": difficulty.instance_threshold}
    instances = [instance.to_json() for instance in difficulty.instances]
    write_json(out / "difficulty.json", {"options": options, **head, "instances": instances})
    text = io.StringIO()
    columns = ("image", "region", "difficulty", "hard", "weight", "mean_relevance", "ratings", "hard_objects")
    rows = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for instance in instances:
        hard = ";".join(thing["name"] for thing in instance["objects"] if thing["hard"])
        rows.writerow({**instance, "image": _cell(instance["image"]), "hard_objects": _cell(hard)})
    _write(out / "difficulty.csv", text.getvalue())


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _counts(answers: Answers, difficulty: Difficulty, unplaced: int) -> dict[str, Any]:
    types = Counter("" if r.stated is None else r.stated.name.lower() for r in answers.ratings)
    return {
        "records": answers.records,
        "ratings": len(answers.ratings),
        "rationales": len(answers.rationales),
        "images": len({rating.unit.image for rating in answers.ratings}),
        "types": dict(sorted(types.items())),
        "repaired": len({(p.source, p.record) for p in answers.problems if p.kept}),
        "set_aside": sum(not p.kept for p in answers.problems),
        "hard": sum(instance.hard for instance in difficulty.instances),
        "instances": len(difficulty.instances),
        "unplaced": unplaced,
    }


def _report(
    counts: dict[str, Any],
    answers: Answers,
    difficulty: Difficulty,
    found: dict[str, tuple[Concept, ...]],
    agreed: dict[str, Any],
) -> str:
    types = ", ".join(f"{name or 'none'} {count}" for name, count in counts["types"].items())
    lines = [
        f"{counts['records']} records: {counts['ratings']} ratings of {counts['images']} images ({types}), "
        f"{counts['rationales']} graphs",
        f"{counts['repaired']} records repaired, {counts['set_aside']} answers set aside",
        f"{counts['hard']} of {counts['instances']} instances are hard (difficulty from "
        f"{difficulty.instance_threshold:.3f} on; objects from {difficulty.object_threshold:.3f} on)",
    ]
    if agreed["alpha"] is None:
        lines.append(f"agreement: none; {agreed['reason']}")
    else:
        lines.append(f"agreement: Krippendorff's alpha {agreed['alpha']:.3f} on {agreed['units']} units")
    if counts["unplaced"]:
        lines.append(f"{counts['unplaced']} ratings name no region or no word; relevance.json is without them")
    if "split" in counts:
        kept = counts["split"]
        lines.append(f"{kept['name']}: {kept['regions']} of {kept['regions_before']} regions")
    for word, those in found.items():
        for verdict in ("confounded", "valid"):
            if names := [f"{c.name} ({c.support})" for c in those if c.verdict == verdict]:
                lines.append(f"{clean(word)}: {verdict} {', '.join(names[:_NAMED])}")
    lines.append("")
    reasons = Counter(("repaired" if p.kept else "set aside", p.reason) for p in answers.problems)
    lines += [f"{count:6}  {what}: {reason}" for (what, reason), count in reasons.most_common(_NAMED)]
    return "\n".join(lines).rstrip() + "\n"


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _write(path: Path, text: str) -> None:
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
