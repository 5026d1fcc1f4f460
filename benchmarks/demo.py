"""The product end to end: `world` trains, serves and asks on the procedural world, `photos` on photographs.

Everything runs through the console commands a user has (`saaa-train`, `saaa up`) and the public client. Writes
`result.json`, `report.html` with its pictures, and the archives in `models/`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import ega_coco
from benchmarks.steps import Steps, command, facade
from saaa.client import Client
from saaa.report import ReportEntry, write_report

BACKEND = "torchserve"
SCENES_SHOWN = 6
PHOTOS_SHOWN = 6
MINUTES = {"world": 12, "photos": 15}
CREATIVE_COMMONS_SHARABLE = {4, 5, 7}

EGDD_NETWORK = "--model tf_efficientnet_lite0 --pretrained efficientnet_lite0 --resize squash --num_workers 0"
EGDD_WORLD = (
    f"{EGDD_NETWORK} --input_size 128 --epochs 6 --warmup_epochs 0.5 --batch_size 32 --lr 2e-3 "
    "--layer_decay 0.9 --freeze_below 0.28 --min_crop 0.6 --ema 0.97 --drop_path 0 --aa none --reprob 0"
).split()
EGDD_PHOTOS = (
    f"{EGDD_NETWORK} --input_size 224 --epochs 9 --warmup_epochs 1 --batch_size 32 --lr 1e-3 "
    "--layer_decay 0.85 --freeze_below 0.13 --min_crop 0.5 --mixup 0.2 --ema 0.97 --drop_path 0.1 --aa none --reprob 0"
).split()
EGA_WORLD = (
    "--pretrained efficientnet_lite0 --levels 1 2 3 --grid 3 --width 192 --epochs 5 --warmup_epochs 0.3 "
    "--batch_size 64 --lr 2e-3 --schedule cosine --ema 0.99 --weight_decay 0.05 --feature_dropout 0.2 "
    "--explanation_weight 1.0 --naming_weight 0.5"
).split()


@dataclass(frozen=True)
class Question:
    """One picture to ask about, with the graph to send along, if any."""

    path: Path
    graph: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """The procedural world: both archives trained from scratch data."""

    output: Path = Path("build/demo")
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Photographs: EGDD from ImageNet weights on scenes15, EGA on coco-mini; pictures of scenes15/val and coco-mini
    asked that neither was trained on."""

    data: Path = Path("../shared/data")
    output: Path = Path("build/demo-photos")
    seed: int = 0


def world(config: World) -> None:
    """Train both models on a fresh world, serve them, ask about held-out scenes with and without their graph."""
    steps, out = Steps(), fresh(config.output)
    scenes, models = out / "world", out / "models"
    with steps.step("the world"):
        command("saaa-train", "scenes", "--output_dir", scenes, *seed(config))
    with steps.step("train EGDD"):
        command("saaa-train", "egdd", *EGDD_WORLD, "--data_path", scenes, "--output_dir", out / "egdd", *seed(config))
    with steps.step("train EGA"):
        command("saaa-train", "ega", *EGA_WORLD, "--data_path", scenes, "--output_dir", out / "ega", *seed(config))
    with steps.step("archive and evaluate"):
        egdd = archive_and_evaluate("egdd", "scenes", out / "egdd" / "last.pt", models, "--data_path", scenes / "test")
        ega = archive_and_evaluate(
            "ega", "scenes-captioner", out / "ega" / "best.pt", models,
            "--data_path", scenes, "--proposer", models / "scenes.mar",
        )  # fmt: skip
    analyses = ask(steps, models, list(held_out_scenes(scenes)))
    metrics = {"egdd_accuracy": egdd["accuracy"], **{k: v for k, v in ega.items() if k.startswith("ega_")}}
    finish(steps, out, analyses, metrics, "saaa on the procedural world", MINUTES["world"])


def photos(config: Photos) -> None:
    """Train EGDD on scenes15 and EGA on coco-mini, serve both, ask about scenes15's validation photographs and about
    photographs of coco-mini with graphs, which EGA was not trained on.

    Both serve their last epoch: the photographs have no second held-out set to choose one by.
    """
    for name in ("scenes15", "coco-mini"):
        if not (config.data / name).is_dir():
            raise SystemExit(f"{config.data / name} is missing: give the folder that holds it with DATA=... or --data")
    steps, out = Steps(), fresh(config.output)
    scenes15, coco, models = config.data / "scenes15", config.data / "coco-mini", out / "models"
    with_graphs = list(coco_questions(coco, PHOTOS_SHOWN))
    with steps.step("train EGDD"):
        command(
            "saaa-train", "egdd", *EGDD_PHOTOS, "--data_path", scenes15, "--output_dir", out / "egdd", *seed(config)
        )
    with steps.step("graphs of COCO's captions"):
        asked = [question.path.name for question in with_graphs]
        others = sorted(path.name for path in (coco / "images").iterdir() if path.name not in asked)
        ega_coco.make_graphs(coco, out / "coco", {"trn": others, ega_coco.HELD: asked})
    where = ("--data_path", out / "coco", "--images", coco / "images")
    with steps.step("train EGA"):
        train = (*ega_coco.RECIPE, "--val_set", ega_coco.HELD, "--val_every", str(ega_coco.EPOCHS))
        command("saaa-train", "ega", *train, *where, "--output_dir", out / "ega", *seed(config))
    with steps.step("archive and evaluate"):
        data = ("--data_path", scenes15 / "val")
        egdd = archive_and_evaluate("egdd", "photos", out / "egdd" / "last.pt", models, *data)
        ega = archive_and_evaluate("ega", "photos-captioner", out / "ega" / "last.pt", models, *where)
    questions = [Question(path) for path in one_of_each_class(scenes15 / "val", PHOTOS_SHOWN)]
    analyses = ask(steps, models, questions + with_graphs)
    metrics = {"egdd_accuracy": egdd["accuracy"], **{k: v for k, v in ega.items() if k.startswith("ega_")}}
    finish(steps, out, analyses, metrics, "saaa on photographs", MINUTES["photos"])


def fresh(output: Path) -> Path:
    """An empty folder; what an earlier demo left there goes."""
    if output.exists() and any(output.iterdir()) and not (output / "models").is_dir():
        raise SystemExit(f"{output} holds something else than an earlier demo: choose another --output or empty it")
    shutil.rmtree(output, ignore_errors=True)
    (output / "models").mkdir(parents=True)
    return output


def seed(config: World | Photos) -> tuple[str, str]:
    return "--seed", str(config.seed)


def archive_and_evaluate(kind: str, name: str, checkpoint: Path, models: Path, *data: str | Path) -> dict[str, Any]:
    """Make the archive of a checkpoint, then measure the archive itself on held-out data, named as for evaluating."""
    archive, metrics = models / f"{name}.mar", checkpoint.with_name("held_out.json")
    command("saaa-train", "archive", kind, "--checkpoint", checkpoint, "--output", archive, "--name", name)
    command("saaa-train", "evaluate", kind, "--archive", archive, *data, "--output", metrics)
    result: dict[str, Any] = json.loads(metrics.read_text())
    return result


def held_out_scenes(scenes: Path) -> Iterator[Question]:
    """A held-out scene of each of the first classes, once without and once with the graph of its first region."""
    for path in one_of_each_class(scenes / "test", SCENES_SHOWN):
        regions = json.loads((scenes / "annotations" / "regionfiles" / f"{path.stem}.json").read_text())
        yield Question(path)
        yield Question(path, next(iter(regions.values())))


def one_of_each_class(folder: Path, count: int) -> list[Path]:
    """The first picture of each of the first `count` class folders, by name."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [min(path for path in folder.iterdir() if path.is_file()) for folder in classes[:count]]


def coco_questions(coco: Path, count: int) -> Iterator[Question]:
    """COCO photographs whose licence lets them be shown, each with the graph of its instances."""
    instances = json.loads((coco / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    sharable = [image for image in instances["images"] if image["license"] in CREATIVE_COMMONS_SHARABLE]
    for image in sorted(sharable, key=lambda image: int(image["id"])):
        found = [a for a in instances["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        if not 2 <= len(found) <= 8:
            continue
        objects = [coco_object(a, names, image["width"], image["height"]) for a in found]
        yield Question(coco / "images" / image["file_name"], {"objects": objects, "relationships": []})
        count -= 1
        if not count:
            return


def coco_object(annotation: Mapping[str, Any], names: Mapping[int, str], width: int, height: int) -> dict[str, Any]:
    """An instance as an object of the region JSON: the whole pixels that its box touches."""
    left, top, box_width, box_height = annotation["bbox"]
    x, y = min(int(left), width - 1), min(int(top), height - 1)
    right, bottom = min(-int(-(left + box_width) // 1), width), min(-int(-(top + box_height) // 1), height)
    return {
        "object_id": annotation["id"],
        "name": names[annotation["category_id"]],
        "attributes": [],
        "x": x,
        "y": y,
        "w": max(1, right - x),
        "h": max(1, bottom - y),
    }


def ask(steps: Steps, models: Path, questions: list[Question]) -> list[ReportEntry]:
    """Serve the archives on TorchServe and analyse every picture through the facade."""
    with steps.step("serve and analyse"), facade(models, BACKEND) as address, Client(address) as client:
        entries = []
        for question in questions:
            image = question.path.read_bytes()
            analysis = client.analyze(image, graph=question.graph)
            name = f"{question.path.parent.name}/{question.path.name}"  # class folders repeat file names
            entries.append(ReportEntry(file=name, image_bytes=image, analysis=analysis))
            said = analysis.captions[0].text if analysis.captions else "(no captioner)"
            print(f"  {name:<28}{analysis.graph_source:<10}{analysis.predictions[0].label:<16}{said}")
        return entries


def finish(
    steps: Steps, out: Path, entries: list[ReportEntry], metrics: dict[str, Any], title: str, minutes: int
) -> None:
    """Write the report and result.json, print the figures and where the results are."""
    with steps.step("report"):
        report = write_report(out, entries, title=title)
    images = [{"file": entry.file, **entry.analysis.to_json()} for entry in entries if entry.analysis]
    steps.print_table()
    result = {
        "backend": BACKEND,
        "images": images,
        "metrics": metrics,
        "seconds": round(steps.total, 1),
        "seconds_by_step": {name: round(seconds, 1) for name, seconds in steps.seconds.items()},
    }
    path = out / "result.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print("\nheld-out metrics")
    for name, value in metrics.items():
        print(f"  {name:<34}{value}")
    print(f"\n{steps.total / 60:.1f} minutes (aim: at most {minutes})\n{path}\n{report}")


Command = Annotated[World, tyro.conf.subcommand("world")] | Annotated[Photos, tyro.conf.subcommand("photos")]


def main() -> None:
    """Entry point of `python -m benchmarks.demo`."""
    config = tyro.cli(Command, prog="python -m benchmarks.demo", description=__doc__)  # type: ignore[call-overload]
    world(config) if isinstance(config, World) else photos(config)


if __name__ == "__main__":
    main()
