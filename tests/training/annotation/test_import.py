"""Answers in: every file that comes out, the split without hard instances, ratings for the captioner's trainer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saaa.errors import DataError, OptionInvalid
from serving.ratings.export import export_ratings
from serving.ratings.place import Rating as StoredRating
from serving.ratings.place import spelled
from serving.ratings.store import RatingStore
from tests.annotation_exports import facade, odd_export, scale, studio, write
from training.annotation import ImportConfig, import_answers
from training.annotation.optimised import Instances, write_split
from training.cli import main
from training.ega.published import AnnotationFolder, Skipped
from training.ega.relevance import read_ratings

PUBLISHED = "coco-model-asg/tasks.json"


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rate(
    image: str, region: str | None, rating: float, word: str = "ball", who: int = 1, id_: int = 1
) -> dict[str, Any]:
    unit = {"image": image, "region": region, "target": "word", "position": 1, "word": word}
    return studio(unit, (who, "object", word, rating), id_=id_)


def test_files(tmp_path: Path) -> None:
    answers = write(tmp_path / "tasks.json", odd_export())
    counts = import_answers(ImportConfig(answers=(answers,), out=tmp_path / "out"))
    assert (counts["records"], counts["ratings"], counts["set_aside"], counts["instances"]) == (16, 13, 3, 3)
    assert counts["types"] == {"": 1, "attribute": 2, "object": 6, "relationship": 4}
    assert load(tmp_path / "out/report.json") == counts
    ratings = lines(tmp_path / "out/ratings.jsonl")
    assert len(ratings) == 13
    assert ratings[1] == {
        "id": "task-COCO_val2014_000000000001-2", "image": "COCO_val2014_000000000001", "region": None,
        "target": "word", "position": 2, "word": None, "type": "relationship", "kind": "relationship", "subject": "man",
        "predicate": "riding", "object": "horse", "description": "(man,riding,horse)", "rating": 4.0, "annotator": None,
    }  # fmt: skip
    assert {p["kept"] for p in lines(tmp_path / "out/problems.jsonl")} == {True, False}
    assert len(load(tmp_path / "out/model_asg.json")["graphs"]) == 3
    difficulty = load(tmp_path / "out/difficulty.json")
    rows = list(csv.DictReader((tmp_path / "out/difficulty.csv").open()))
    assert [row["image"] for row in rows] == [instance["image"] for instance in difficulty["instances"]]
    assert [i["hard"] for i in difficulty["instances"]] == [True, True, False]
    assert rows[2]["hard"] == "False"
    report = (tmp_path / "out/report.txt").read_text()
    assert "16 records: 13 ratings of 3 images" in report
    assert "'sgin' read as 'sign'" in report


def test_the_published_export(shared_data: Path, tmp_path: Path) -> None:
    counts = import_answers(ImportConfig(answers=(shared_data / PUBLISHED,), out=tmp_path / "out", hard="gap"))
    assert (counts["ratings"], counts["images"]) == (134, 30)
    assert counts["types"] == {"": 1, "attribute": 4, "object": 72, "relationship": 57}
    scores = [instance["mean_relevance"] for instance in load(tmp_path / "out/difficulty.json")["instances"]]
    assert sum(score > 0.7 for score in scores) == 10
    assert counts["hard"] == 20  # the gap is where the published score has one


def test_the_trainer_takes_the_relevance(world: Path, tmp_path: Path) -> None:
    notes = world / "annotations"
    first, second = AnnotationFolder(notes).image_ids("val_sub")[:2]
    tasks = [
        rate(first, "0", 2.5, "ball"),
        {
            **scale(f"COCO_{second}", 3, "relationship", "(a, on the, b)", 4),
            "metadata": {"filename": f"{second}__caption_3_attr_result.jpg"},
        },
        rate(f"val_sub/scene/{second}.jpg", None, 1, "red brick", id_=3),
        rate("nowhere", None, 1, id_=4),
    ]
    answers = write(tmp_path / "x.json", tasks)
    counts = import_answers(ImportConfig(answers=(answers,), out=tmp_path / "out", annotations=notes, tau=1))
    assert counts["unplaced"] == 1
    found = {(r.image_id, r.region_id, r.word, r.rating) for r in read_ratings(tmp_path / "out/relevance.json")}
    assert found == {
        (first, "0", "ball", 2.5), (second, "0", "on", 4), (second, "0", "red", 1), (second, "0", "brick", 1),
    }  # fmt: skip


def test_split_without_hard_instances(world: Path, tmp_path: Path) -> None:
    notes = world / "annotations"
    ids = AnnotationFolder(notes).image_ids("val_sub")
    tasks = [rate(ids[0], "0", 1), rate(f"{ids[1]}.jpg", None, 1.5, id_=2), rate(ids[2], "0", 5, id_=3)]
    answers = write(tmp_path / "x.json", tasks)
    counts = import_answers(ImportConfig(answers=(answers,), out=tmp_path / "out", annotations=notes))
    assert counts["hard"] == 2
    assert counts["split"] == {
        "name": "val_sub_opt", "regions": 2, "regions_before": 4, "images": 2, "images_before": 4,
    }  # fmt: skip
    new, skipped = AnnotationFolder(tmp_path / "out/annotations"), Skipped()
    assert new.splits() == ["val_sub_opt"]
    assert new.image_ids("val_sub_opt") == ids[2:]
    assert new.vocabulary().words == AnnotationFolder(notes).vocabulary().words
    before = {r.image_id: r for r in AnnotationFolder(notes).regions("val_sub", skipped)}
    after = new.regions("val_sub_opt", skipped)
    assert after == [before[image] for image in ids[2:]]
    assert skipped.reasons == []


def test_a_hard_region_leaves_the_others(world: Path, tmp_path: Path) -> None:
    """Two regions of one image, of which one is hard."""
    source, notes = tmp_path / "notes", world / "annotations"
    image = AnnotationFolder(notes).image_ids("val_sub")[0]
    region = load(notes / f"regionfiles/{image}.json")["0"]
    for folder in ("regionfiles", "public_split"):
        (source / folder).mkdir(parents=True)
    (source / f"regionfiles/{image}.json").write_text(json.dumps({"0": region, "1": region}))
    np.save(source / "regionfiles/val_sub_names.npy", np.array([(image, "0"), (image, "1")]))
    np.save(source / "public_split/val_sub_names.npy", np.array([f"{image}.jpg"]))
    assert Instances.of(AnnotationFolder(source)).regions(f"a/{image}.jpg") == ("0", "1")
    write_split(source, "val_sub", {(image, "1")}, tmp_path / "new")
    assert [r.region_id for r in AnnotationFolder(tmp_path / "new").regions("val_sub_opt", Skipped())] == ["0"]
    with pytest.raises(DataError, match="nothing is left"):
        write_split(source, "val_sub", {(image, None)}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_facade_ratings_of_a_run(classified: Path, tmp_path: Path) -> None:
    """The image's digest leads to the run's image."""
    record = json.loads((classified / "index.jsonl").read_text().splitlines()[0])
    image = {"sha256": record["sha256"], "width": 64, "height": 64}
    path = tmp_path / "ratings.jsonl"
    answers = [facade(f"r{k}", rating=rating, image=image) for k, rating in enumerate((1, 1, 2, 1.5))]
    path.write_text("".join(json.dumps(line) + "\n" for line in answers))
    import_answers(ImportConfig(answers=(path,), out=tmp_path / "out", run=classified))
    assert {rating["image"] for rating in lines(tmp_path / "out/ratings.jsonl")} == {record["file"]}
    (lamp,) = load(tmp_path / "out/concepts.json")["kitchen"]
    assert (lamp["concept"], lamp["support"], lamp["verdict"]) == ("lamp", 4, "confounded")
    assert "kitchen: confounded lamp (4)" in (tmp_path / "out/report.txt").read_text()


async def test_the_facades_store_itself(tmp_path: Path) -> None:
    """What the store keeps and exports is what the import reads."""
    kept = {k: v for k, v in facade("r1").items() if k not in ("format", "request_id", "recorded_at")}
    store = RatingStore(tmp_path / "ratings.db")
    for request, rating in (("r1", 4.5), ("r2", 1)):
        told = {**kept["relevance"], "relevance": rating}
        await store.record(StoredRating(request_id=request, content=spelled({**kept, "relevance": told})))
    await store.close()
    with (tmp_path / "ratings.jsonl").open("w") as out:
        assert export_ratings(tmp_path / "ratings.db", out) == 2
    import_answers(ImportConfig(answers=(tmp_path / "ratings.jsonl",), out=tmp_path / "out"))
    found = [(r["id"], r["rating"], r["annotator"], r["word"]) for r in lines(tmp_path / "out/ratings.jsonl")]
    assert found == [("r1", 4.5, "a7", "kitchen"), ("r2", 1, "a7", "kitchen")]


def test_agreement_is_reported(tmp_path: Path) -> None:
    unit = {"image": "i", "region": "0", "target": "word", "position": 1, "word": "cup"}
    other = {**unit, "position": 2}
    tasks = [
        studio(unit, (1, "object", "cup", 1), (2, "object", "cup", 2)),
        studio(other, (1, "object", "mat", 4), (2, "object", "mat", 5), id_=2),
    ]
    import_answers(ImportConfig(answers=(write(tmp_path / "x.json", tasks),), out=tmp_path / "out"))
    told = load(tmp_path / "out/annotators.json")
    assert told["annotators"]["2"] == {"ratings": 2, "shared": 2, "bias": 1}
    # Within: 1 and 1; among all of 1 2 4 5: (1 + 9 + 16 + 4 + 9 + 1) / 6; alpha = 1 - 1 / (40 / 6).
    assert told["alpha"] == pytest.approx(0.85)


def test_bad_input(tmp_path: Path, capsys) -> None:
    bad = write(tmp_path / "x.json", [scale(1, 1, "object", "cup", "9")])
    with pytest.raises(DataError, match=r"Not one of 1 records counts.*outside 1 to 5"):
        import_answers(ImportConfig(answers=(bad,), out=tmp_path / "out"))
    assert len(lines(tmp_path / "out/problems.jsonl")) == 1
    with pytest.raises(DataError, match="Split it"):
        import_answers(ImportConfig(answers=(bad,), out=tmp_path / "out", max_mb=1e-6))
    for options in ({"alpha": 2.0}, {"tau": -1.0}, {"max_mb": 0.0}):
        with pytest.raises(OptionInvalid):
            ImportConfig(answers=(bad,), out=tmp_path, **options)
    assert main(["annotate", "import", "--answers", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2
    assert "saaa-train annotate import: " in capsys.readouterr().err


def test_texts_are_harmless(tmp_path: Path, capsys) -> None:
    """Nothing typed moves the cursor, starts a formula or leaves the folder."""
    tasks = [
        scale("=cmd()", 1, "object", "=1+1\x1b[2J", "1"), scale("ok", 1, "object", "<b>", "1"),
        scale("../../evil", 1, "object", "cup", "1"),
    ]  # fmt: skip
    answers = write(tmp_path / "in.json", tasks)
    import_answers(ImportConfig(answers=(answers,), out=tmp_path / "a/out"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.json", "a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"out"}
    assert "\x1b" not in capsys.readouterr().out
    for path in (tmp_path / "a/out").iterdir():
        assert b"\x1b" not in path.read_bytes()
    rows = list(csv.reader((tmp_path / "a/out/difficulty.csv").open()))[1:]
    assert not any(cell.startswith("=") for row in rows for cell in row)
