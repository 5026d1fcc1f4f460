"""Attribution measured: is it true, is it about the words' objects, what does it cost?

    python -m benchmarks.attribution

Quality is measured where the truth is known: vision transformers that name the objects of a scene
(`benchmarks.objects`) should be explained by the objects' masks, and the demo's CNN by the scenes' evidence. The first
run renders a world and trains the transformers (about 15 minutes of processor time each); later runs read them from
`build/bench/models`. Needs the archives that `make demo` leaves. Writes `build/bench/attribution.json`, part by part,
and a picture beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn

from benchmarks.compiled_maps import beside_torch, side_by_side
from benchmarks.cost import DEAR, beside_others, classifier, cost_of_methods
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
GATES = (
    ("pointing", True, 0.85),
    ("mass", True, 0.45),
    ("rank", True, 0.65),
    ("object_top1", True, 0.95),
    ("deletion", False, 0.25),
    ("insertion", True, 0.90),
    ("mprt", False, 0.10),
    ("shapley_cosine", True, 0.95),
    ("word_pointing", True, 0.85),
    ("one_class_batch1", False, 2.8),
    ("one_class_batch8", False, 2.8),
    ("four_classes_batch1", False, 5.5),
    ("grad_cam_batch1", False, 1.5),
)
TABLES = {
    "methods": "mean-pooled ViT, objects",
    "methods_class_token": "class-token ViT, objects",
    "methods_cnn": "CNN, evidence of the scene's class",
}
TIMED, TIMED_CNN = "vit_tiny_patch16_224", "tf_efficientnet_lite0"
CAPTIONED = 200
"""Held-out pictures whose captions are explained."""
QUALITY = ("pointing", "mass", "rank", "object_top1", "deletion", "insertion", "mprt", "shapley_cosine")


Part = Literal["cost", "default", "methods", "words", "compiled"]


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
    parts: tuple[Part, ...] = ("cost", "default", "methods", "words", "compiled")
    """What to measure; what attribution.json already says of the rest is kept."""


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
    bench = Bench(options)
    path = options.output / "attribution.json"
    for part in options.parts:
        torch.set_num_threads(1 if part == "cost" else options.threads)
        measured = getattr(bench, part)()
        # Read again: another process may have measured another part meanwhile.
        figures = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**figures, **measured}, indent=1) + "\n")
    figures = json.loads(path.read_text())
    report(figures)
    print(json.dumps(figures))


class Bench:
    """The parts of the measurement; each method gives its share of the figures."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._models = options.output / "models"
        world = options.output / "world"
        words = f"--train {TRAIN} --val 1 --test {TEST} --size {SIZE} --seed 7 --output_dir {world}"
        command = [str(Path(sys.executable).parent / "saaa-train"), "scenes", *words.split()]
        subprocess.run(command, check=True)
        self._train, self._test = read_scenes(world, "train"), read_scenes(world, "test")

    def cost(self) -> dict[str, Any]:
        """What each method costs, beside other libraries."""
        mean_pooled = classifier(TIMED, global_pool="avg", class_token=False)
        names = tuple(method.name for method in methods_for(mean_pooled))
        cost = cost_of_methods(mean_pooled, tuple(name for name in names if name not in DEAR), self._options.rounds)
        return {
            "cost": {**cost[names[0]], "grad_cam_batch1": cost["grad_cam"]["one_class_batch1"]},
            "cost_of_methods": cost,
            "ours_by_theirs": {name: beside_others(name, self._options.rounds) for name in (TIMED, TIMED_CNN)},
        }

    def default(self) -> dict[str, Any]:
        """The default method on three mean-pooled transformers."""
        judges = [self._judge(seed) for seed in SEEDS]
        cases = [self._cases(judge, seed) for seed, judge in zip(SEEDS, judges, strict=True)]
        found = measured_by_seed(judges, cases)
        chance = judges[0].measure(cases[0], judges[0].referee(cases[0]), ExplainOptions(method=RANDOM))
        methods = [method.name for method in methods_for(judges[0].classifier)]
        picture = self._options.output / "attribution.png"
        draw_sheet(judges[0].classifier, cases[0][:SHOWN], methods, NAMES).save(picture)
        means = found.means()
        return {
            "default": {**means, "mprt": abs(means["mprt"])},
            "default_method": methods[0],
            "default_scenes": len(found.values["pointing"]),
            "intervals": {name: found.interval(name) for name in found.values},
            "random": chance.means(),
            "picture": str(picture),
        }

    def methods(self) -> dict[str, Any]:
        """Every method on a mean-pooled transformer, on one with a class token, and on the demo's CNN."""
        count = self._options.others
        judge = self._judge(SEEDS[0])
        short = Phase(epochs=6, rate=2e-3, token_weight=0.5, removal=0.5, objects=0.2)
        class_token = trained(Recipe(pooling="token", phases=(short,)), self._train, self._models)
        token_judge = Judge(classifier=class_token, probability=nn.Sigmoid())
        cnn = Classifier.from_archive(archive.read(self._options.demo / "models" / "scenes.mar"))
        cnn_cases = evidence_cases(cnn, self._options.demo / "world", count)
        return {
            "methods": every_method(judge, self._cases(judge, SEEDS[0])[:count]),
            "methods_class_token": every_method(token_judge, self._cases(token_judge, SEEDS[0])[:count]),
            "methods_cnn": every_method(Judge(classifier=cnn, probability=nn.Softmax(dim=1)), cnn_cases),
        }

    def words(self) -> dict[str, Any]:
        """Words of captions."""
        demo = self._options.demo
        named = word_pointing(demo / "models" / "scenes-captioner.mar", demo / "world", CAPTIONED)
        return {"word_pointing": named["methods"][named["default"]]["pointing"], "words": named}

    def compiled(self) -> dict[str, Any]:
        """The default method by its compiled graph, beside torch."""
        judge = self._judge(SEEDS[0])
        cases = self._cases(judge, SEEDS[0])[: self._options.others]
        return {"compiled": beside_torch(judge, cases, judge.referee(cases), RANDOMISED)}

    def _judge(self, seed: int) -> Judge:
        model = trained(Recipe(seed=seed), self._train, self._models)
        return Judge(classifier=model, probability=nn.Sigmoid(), blur=True)

    def _cases(self, judge: Judge, seed: int) -> list[Case]:
        """The held-out scenes of one seed; no two seeds share one."""
        chosen = slice(seed * SCENES_A_SEED, (seed + 1) * SCENES_A_SEED)
        return object_cases(judge.classifier, Scenes(self._test.images[chosen], self._test.kinds[chosen]), seed)


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


def report(figures: Mapping[str, Any]) -> None:
    """Print the tables, and the gates of what was measured."""
    columns = ("pointing", "mass", "rank", "object_top1", "iou", "deletion", "insertion", "shapley_cosine", "mprt")
    for table, title in TABLES.items():
        print(f"\n{title}\n  {'method':<22}" + "".join(f"{name[:11]:>12}" for name in columns) + f"{'scenes':>8}")
        for name, row in figures.get(table, {}).items():
            cells = "".join(f"{row[c]:12.3f}" if c in row else f"{'-':>12}" for c in columns)
            print(f"  {name:<22}{cells}{row['scenes']:8d}")
    print(f"\ncost in forwards, {TIMED}, mean-pooled, one thread, prediction included")
    for name, row in figures.get("cost_of_methods", {}).items():
        print(f"  {name:<22}" + "".join(f"{key} {row[key]:6.2f}   " for key in COST_KEYS))
    print("\nour time divided by theirs")
    for architecture, row in figures.get("ours_by_theirs", {}).items():
        print(f"  {architecture}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    if "default" in figures:
        print(f"\ndefault: {figures['default_method']}, {figures['default_scenes']} scenes, 95 % interval, random maps")
        for name in (*QUALITY, "deletion_blur", "insertion_blur"):
            low, high = figures["intervals"][name]
            at_random = f"{figures['random'][name]:8.3f}" if name in figures["random"] else f"{'-':>8}"
            print(f"  {name:<24}{figures['default'][name]:8.3f}   {low:6.3f} to {high:6.3f}   {at_random}")
    if "compiled" in figures:
        print(side_by_side(figures["compiled"], QUALITY))
    print("\ngates")
    values = {**figures.get("default", {}), **figures.get("cost", {}), "word_pointing": figures.get("word_pointing")}
    for name, at_least, bound in GATES:
        if values.get(name) is not None:
            print(Gate(name, values[name], bound, at_least))


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.attribution", description=__doc__))
