"""Attribution measured: is it true, is it about the words' objects, what does it cost?

    python -m benchmarks.attribution

Quality is measured where the truth is known: vision transformers that name the objects of a scene
(`benchmarks.objects`) should be explained by the objects' masks, and the demo's CNN by the scenes' evidence. The first
run renders a world and trains the transformers (about 15 minutes of processor time each); later runs read them from
`build/bench/models`. Needs the archives that `make demo` leaves. Writes `build/bench/attribution.json` and a picture
beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn

from benchmarks.cost import DEAR, beside_others, cost_of_methods
from benchmarks.objects import NAMES, Phase, Recipe, Scenes, read_scenes, trained
from benchmarks.quality import RANDOM, Case, Figures, Judge
from benchmarks.sheet import draw_sheet
from benchmarks.words import word_pointing
from saaa import archive
from saaa.attribution import methods_for
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions

SIZE = 96
TRAIN, TEST = 6000, 720
SEEDS = (0, 1, 2)
SCENES_A_SEED = 240
RANDOMISED = 48
"""Scenes of each model for the randomisation test."""
SHOWN = 8
COST_KEYS = ("one_class_batch1", "one_class_batch8", "four_classes_batch1")
QUALITY = ("pointing", "mass", "rank", "object_top1", "deletion", "insertion", "mprt", "shapley_cosine")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to measure, and where."""

    output: Path = Path("build/bench")
    demo: Path = Path("build/demo")
    """Output folder of the world demo: its archives and held-out scenes."""
    others: int = 100
    """Scenes for each method that is not the default."""
    rounds: int = 15
    """Timed rounds; medians are taken."""
    threads: int = 2
    """Of torch, but for the timings, which use one."""


@dataclass(frozen=True)
class Gate:
    """A figure that should be reached."""

    name: str
    value: float
    bound: float
    at_least: bool

    def __str__(self) -> str:
        reached = self.value >= self.bound if self.at_least else self.value <= self.bound
        sign = ">=" if self.at_least else "<="
        return f"  {self.name:<24}{self.value:8.3f}   {sign} {self.bound:<6}{'reached' if reached else 'MISSED'}"


def main(options: Options) -> None:
    """Measure all, print the tables and the gates, write the JSON."""
    if not (options.demo / "models").is_dir():
        sys.exit(f"{options.demo / 'models'} is missing: run `make demo` first")
    torch.set_num_threads(options.threads)
    world = options.output / "world"
    words = [f"--train {TRAIN} --val 1 --test {TEST} --size {SIZE} --seed 7", f"--output_dir {world}"]
    command = [str(Path(sys.executable).parent / "saaa-train"), "scenes", *" ".join(words).split()]
    subprocess.run(command, check=True)
    train, test = read_scenes(world, "train"), read_scenes(world, "test")

    models = options.output / "models"
    recipes = [Recipe(seed=seed) for seed in SEEDS]
    seeds = [trained(recipe, train, models) for recipe in recipes]
    judges = [Judge(classifier=model, probability=nn.Sigmoid(), blur=True) for model in seeds]
    cases = [object_cases(model, _part(test, seed), seed) for seed, model in zip(SEEDS, seeds, strict=True)]
    default = measured_by_seed(judges, cases)
    chance = judges[0].measure(cases[0], judges[0].referee(cases[0]), ExplainOptions(method=RANDOM))
    tables = {
        "mean-pooled ViT, objects": every_method(judges[0], cases[0][: options.others]),
        "class-token ViT, objects": class_token(train, test, models, options.others),
        "CNN, evidence of the scene's class": cnn(options.demo, options.others),
    }
    named = word_pointing(options.demo / "models" / "scenes-captioner.mar", options.demo / "world", 200)

    torch.set_num_threads(1)
    cheap = tuple(m.name for m in methods_for(seeds[0]) if m.name not in DEAR)
    cost = cost_of_methods("vit_tiny_patch16_224", cheap, options.rounds)
    first = methods_for(seeds[0])[0].name
    others = {name: beside_others(name, options.rounds) for name in ("vit_tiny_patch16_224", "tf_efficientnet_lite0")}

    picture = options.output / "attribution.png"
    draw_sheet(seeds[0], cases[0][:SHOWN], [m.name for m in methods_for(seeds[0])], NAMES).save(picture)
    figures = {
        "default": {**default.means(), "mprt": abs(default.means()["mprt"]), "method": first},
        "intervals": {name: default.interval(name) for name in default.values},
        "random": chance.means(),
        "cost": {**cost[first], "grad_cam_batch1": cost["grad_cam"]["one_class_batch1"]},
        "cost_of_methods": cost,
        "ours_by_theirs": others,
        "word_pointing": named["methods"][named["default"]]["pointing"],
        "words": named,
        "methods": tables,
        "picture": str(picture),
    }
    report(figures, default, chance)
    (options.output / "attribution.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def _part(scenes: Scenes, seed: int) -> Scenes:
    """The held-out scenes of one seed; no two seeds share one."""
    chosen = slice(seed * SCENES_A_SEED, (seed + 1) * SCENES_A_SEED)
    return Scenes(scenes.images[chosen], scenes.kinds[chosen])


def object_cases(classifier: Classifier, scenes: Scenes, seed: int) -> list[Case]:
    """One case a scene: a kind that is there and that the classifier finds, drawn at random; its mask is the truth."""
    rng = np.random.default_rng(seed)
    inputs = classifier.preprocess(torch.from_numpy(scenes.images))
    with torch.inference_mode():
        found = torch.cat([classifier(piece) > 0 for piece in inputs.split(60)]).numpy()
    cases = []
    for place, kinds in enumerate(scenes.kinds):
        there = [int(kind) - 1 for kind in np.unique(kinds) if kind]
        right = [kind for kind in there if found[place, kind]]
        if right:
            target = int(rng.choice(right))
            regions = [target, *(kind for kind in there if kind != target)]
            masks = np.stack([kinds == kind + 1 for kind in regions])
            cases.append(Case(inputs[place], target, torch.from_numpy(masks)))
    return cases


def measured_by_seed(judges: Sequence[Judge], cases: Sequence[Sequence[Case]]) -> Figures:
    """The default method's figures over the cases of all seeds."""
    figures, options = Figures(), ExplainOptions()
    for seed, (judge, own) in enumerate(zip(judges, cases, strict=True)):
        figures.extend(judge.measure(own, judge.referee(own), options))
        figures.extend(judge.randomised(own[:RANDOMISED], options, seed=seed))
    return figures


def every_method(judge: Judge, cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """The means of each method that the classifier supports, the default first, and of random maps."""
    methods = [method.name for method in methods_for(judge.classifier)]
    tried = {name: ExplainOptions(method=name) for name in (*methods, RANDOM)}
    if "cp_lrp" in tried:
        tried["cp_lrp, gamma 0.25"] = ExplainOptions(method="cp_lrp", gamma=0.25)
    found, referee = {}, judge.referee(cases)
    for name, options in tried.items():
        few = max(1, len(cases) // 4) if name == "rise" else len(cases)
        figures = replace(judge, blur=False).measure(cases[:few], referee[:few], options)
        if name not in (RANDOM, *DEAR):
            figures.extend(judge.randomised(cases[:RANDOMISED], options))
        found[name] = figures.means() | {"scenes": few}
    return found


def class_token(train: Scenes, test: Scenes, models: Path, count: int) -> dict[str, dict[str, float]]:
    """Every method on the same transformer with a class token, trained for a shorter time."""
    short = Phase(epochs=6, rate=2e-3, token_weight=0.5, removal=0.5, objects=0.2)
    model = trained(Recipe(pooling="token", phases=(short,)), train, models)
    return every_method(Judge(classifier=model, probability=nn.Sigmoid()), object_cases(model, test, 0)[:count])


def cnn(demo: Path, count: int) -> dict[str, dict[str, float]]:
    """Every method on the demo's classifier of scenes; the truth is the evidence: the objects that decide the class."""
    model = Classifier.from_archive(archive.read(demo / "models" / "scenes.mar"))
    judge = Judge(classifier=model, probability=nn.Softmax(dim=1))
    return every_method(judge, evidence_cases(model, demo / "world", count))


def evidence_cases(classifier: Classifier, world: Path, count: int) -> list[Case]:
    """The first held-out scenes that the classifier gets right."""
    size = classifier.config.input_size
    rows = [json.loads(line) for line in (world / "scenes.jsonl").read_text().splitlines()]
    cases: list[Case] = []
    for row in (row for row in rows if row["split"] == "test"):
        with Image.open(world / row["file"]) as picture, Image.open(world / "masks" / f"{row['id']}.png") as labels:
            pixels = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
            things = np.asarray(labels.resize((size, size), Image.Resampling.NEAREST))
        inputs = classifier.preprocess(torch.from_numpy(pixels.copy())[None])
        with torch.inference_mode():
            said = int(classifier(inputs)[0].argmax())
        if classifier.config.classes[said] != row["class"]:
            continue
        evidence = np.isin(things, row["evidence"])
        rest = [things == thing["object_id"] for thing in row["objects"] if thing["object_id"] not in row["evidence"]]
        masks = np.stack([evidence, *(mask for mask in rest if mask.any())])
        cases.append(Case(inputs[0], said, torch.from_numpy(masks)))
        if len(cases) == count:
            break
    return cases


def report(figures: Mapping[str, Any], default: Figures, chance: Figures) -> None:
    """Print the tables and the gates."""
    columns = ("pointing", "mass", "rank", "object_top1", "iou", "deletion", "insertion", "shapley_cosine", "mprt")
    for title, table in figures["methods"].items():
        print(f"\n{title}\n  {'method':<22}" + "".join(f"{name[:11]:>12}" for name in columns) + f"{'scenes':>8}")
        for name, row in table.items():
            cells = "".join(f"{row[c]:12.3f}" if c in row else f"{'-':>12}" for c in columns)
            print(f"  {name:<22}{cells}{row['scenes']:8d}")
    print("\ncost in forwards, ViT-Ti/16 at 224, one thread, prediction included")
    for name, row in figures["cost_of_methods"].items():
        print(f"  {name:<22}" + "".join(f"{key} {row[key]:6.2f}   " for key in COST_KEYS))
    print("\nour time divided by theirs")
    for architecture, row in figures["ours_by_theirs"].items():
        print(f"  {architecture}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    means, cost = figures["default"], figures["cost"]
    print(f"\ndefault ({means['method']}), {len(default.values['pointing'])} scenes, 95 % interval, random maps")
    for name in (*QUALITY, "deletion_blur", "insertion_blur"):
        low, high = default.interval(name)
        at_random = f"{chance.means()[name]:8.3f}" if name in chance.values else f"{'-':>8}"
        print(f"  {name:<24}{means[name]:8.3f}   {low:6.3f} to {high:6.3f}   {at_random}")
    print("\ngates")
    bounds = {"pointing": 0.85, "mass": 0.45, "rank": 0.65, "object_top1": 0.95, "deletion": 0.25, "insertion": 0.90}
    for name, bound in bounds.items():
        print(Gate(name, means[name], bound, at_least=name != "deletion"))
    print(Gate("|mprt|", means["mprt"], 0.10, at_least=False))
    print(Gate("shapley_cosine", means["shapley_cosine"], 0.95, at_least=True))
    print(Gate("word_pointing", figures["word_pointing"], 0.85, at_least=True))
    for name, bound in (*zip(COST_KEYS, (2.8, 2.8, 5.5), strict=True), ("grad_cam_batch1", 1.5)):
        print(Gate(name, cost[name], bound, at_least=False))


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.attribution", description=__doc__))
