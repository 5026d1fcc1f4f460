"""The seven strategies: each chooses or asks for what its definition says, and needs what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saaa.difficulty import Concept
from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from tests.training.debugging.tiny_set import CLASSES, Painter, draw_folders
from training.debugging import debug_set
from training.debugging.debug_set import HEAD, MANIFEST
from training.debugging.generators.base import Generator
from training.debugging.generators.folder import FolderGenerator
from training.debugging.pool import Candidates, look
from training.debugging.strategies import NEEDED, STRATEGIES, Materials, StrategyOptions, make_debug_set
from training.egdd.data import find_splits
from training.egdd.listing import list_folders

Make = Callable[..., Materials]
OPTIONS = StrategyOptions(budget=3)
CONCEPTS = {
    "attic": [Concept("ball", "object", 9, 1.0, 1.0, (0.7, 1.0), "confounded")],
    "den": [Concept("(sofa, red)", "attribute", 9, 5.0, 0.0, (0.0, 0.3), "valid")],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("train", "val", "pool")):
        draw_folders(root / name, 8, seed=seed)
    return root


@pytest.fixture
def materials(tiny_models: Path, data: Path) -> Make:
    def make(generator: Generator | None = None, **changes: object) -> Materials:
        everything = Materials(
            model=tiny_models / "egdd.mar",
            classes=CLASSES,
            pool=data / "pool",
            failures=data / "val",
            train=data / "train",
            concepts=CONCEPTS,
            llm_concepts={"attic": ["old trunk", "beams"], "den": ["sofa"]},
            generator=generator or Painter(),
        )
        return replace(everything, **changes)  # type: ignore[arg-type]

    return make


def sources(folder: Path) -> dict[str, list[str]]:
    lines = [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]
    return {label: [line["source"] for line in lines if line["label"] == label] for label in CLASSES}


def naively(found: Candidates, label: str, score: Callable[[int], float]) -> list[str]:
    """The 3 candidates of a class with the highest scores."""
    own = [i for i, name in enumerate(found.listing.names) if name.startswith(label)]
    return [found.listing.names[i] for i in sorted(own, key=lambda i: (-score(i), found.listing.names[i]))[:3]]


def wrong_of(found: Candidates, label: str) -> np.ndarray:
    names = found.listing.names
    return found.embeddings[[i for i in np.flatnonzero(found.wrong) if names[i].startswith(label)]].astype(float)


def chances(found: Candidates, i: int) -> np.ndarray:
    weights = np.exp(found.logits[i].astype(float) - float(found.logits[i].max()))
    return np.asarray(weights / weights.sum())


def entropy(found: Candidates, i: int) -> float:
    return -sum(float(p) * float(np.log(p)) for p in chances(found, i))


def test_the_seven_are_the_published_ones() -> None:
    published = ("s-random", "s-similarity", "s-active-learning", "g-llm", "g-tg", "g-llm-prompt", "ours")
    assert tuple(STRATEGIES) == published
    assert all((way.choose is None) != (way.prompts is None) for way in STRATEGIES.values())
    assert {need for way in STRATEGIES.values() for need in way.needs} <= set(NEEDED)


def test_random_takes_any_and_by_its_seed(materials: Make, tmp_path: Path) -> None:
    picks = {}
    for seed in (0, 0, 1):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        found = make_debug_set("s-random", materials(), StrategyOptions(budget=3, seed=seed), out)
        assert found.counts == dict.fromkeys(CLASSES, 3)
        picks.setdefault(seed, []).append(sources(out))
    assert picks[0][0] == picks[0][1] != picks[1][0]
    assert all(len(set(names)) == 3 for names in picks[0][0].values())


def test_similarity_is_near_the_failures_of_the_class(materials: Make, tmp_path: Path) -> None:
    given = materials()
    failed, pool = look(given.model, given.failures or Path()), look(given.model, given.pool or Path())
    centroid = make_debug_set("s-similarity", given, OPTIONS, tmp_path / "centroid")
    make_debug_set("s-similarity", given, StrategyOptions(budget=3, similarity="nearest"), tmp_path / "nearest")
    compared = 0
    for label in CLASSES:
        wrong = wrong_of(failed, label)
        if not len(wrong):
            assert any(line.startswith(label) for line in centroid.told)
            continue
        compared += 1

        def to_centroid(i: int, wrong: np.ndarray = wrong) -> float:
            return -float(((pool.embeddings[i] - wrong.mean(axis=0)) ** 2).sum())

        def to_nearest(i: int, wrong: np.ndarray = wrong) -> float:
            return -min(float(((pool.embeddings[i] - row) ** 2).sum()) for row in wrong)

        assert sources(tmp_path / "centroid")[label] == naively(pool, label, to_centroid)
        assert sources(tmp_path / "nearest")[label] == naively(pool, label, to_nearest)
    assert compared >= 2


@pytest.mark.parametrize("measure", ["entropy", "margin", "least_confidence"])
def test_active_learning_takes_what_the_model_is_unsure_of(materials: Make, tmp_path: Path, measure: str) -> None:
    given = materials()
    pool = look(given.model, given.pool or Path())

    def unsure(i: int) -> float:
        best = sorted(chances(pool, i))[::-1]
        return {"entropy": entropy(pool, i), "margin": best[1] - best[0], "least_confidence": 1 - best[0]}[measure]

    options = StrategyOptions(budget=3, uncertainty=measure)  # type: ignore[arg-type]
    make_debug_set("s-active-learning", given, options, tmp_path / "set")
    for label in CLASSES:
        assert sources(tmp_path / "set")[label] == naively(pool, label, unsure)


def asked(strategy: str, given: Materials, out: Path, **options: int) -> list[str]:
    make_debug_set(strategy, given, StrategyOptions(**{"budget": 3, **options}), out)
    assert isinstance(given.generator, Painter)
    return [text for text, _ in given.generator.painted]


def test_generating_strategies_ask_in_their_own_words(materials: Make, data: Path, tmp_path: Path) -> None:
    plain = materials()
    assert asked("g-llm", plain, tmp_path / "1") == [
        *["a photo of an attic"] * 3, *["a photo of a bathroom"] * 3, *["a photo of a den"] * 3
    ]  # fmt: skip
    listed = materials()
    assert asked("g-llm-prompt", listed, tmp_path / "2")[:4] == [
        "an attic with an old trunk", "an attic with beams", "an attic with an old trunk", "a photo of a bathroom"
    ]  # fmt: skip
    for given in (plain, listed):
        assert isinstance(given.generator, Painter)
        assert given.generator.learned == {}
    token = materials()
    assert asked("g-tg", token, tmp_path / "3") == ["a photo of a {token}"] * 9
    assert isinstance(token.generator, Painter)
    assert token.generator.learned == {
        label: sorted(p.name for p in (data / "train" / label).iterdir()) for label in CLASSES
    }
    ours = materials()
    assert asked("ours", ours, tmp_path / "4") == [
        *["a photo of a {token}"] * 3,
        *["a photo of a {token}", "a {token} with a ball", "a photo of a {token}"],
        *["a {token} with a red sofa", "a {token} with a ball", "a {token} with a red sofa"],
    ]
    told = json.loads((tmp_path / "2" / HEAD).read_text())["told"]
    assert told == ["bathroom: no concept is known, so it is drawn without"]


def test_the_filter_keeps_what_the_published_score_ranks_highest(materials: Make, tmp_path: Path) -> None:
    given = materials()
    texts = asked("g-llm", given, tmp_path / "set", filter_factor=3)
    assert len(texts) == 27
    found = make_debug_set("g-llm", given, StrategyOptions(budget=3, filter_factor=3), tmp_path / "set")
    assert found.counts == dict.fromkeys(CLASSES, 3)
    drawn = look(given.model, tmp_path / "set" / "drawn" / "images")
    failed = look(given.model, given.failures or Path())
    for label in CLASSES:
        own = [i for i, name in enumerate(drawn.listing.names) if name.startswith(label)]
        wrong = wrong_of(failed, label)
        columns = [{i: entropy(drawn, i) for i in own}]
        if len(wrong):
            columns.append({i: float(((drawn.embeddings[i] - wrong.mean(axis=0)) ** 2).sum()) for i in own})

        def score(i: int, columns: list[dict[int, float]] = columns) -> float:
            low_high = [(min(c.values()), max(c.values())) for c in columns]
            return sum((c[i] - low) / (high - low) for c, (low, high) in zip(columns, low_high, strict=True))

        assert sources(tmp_path / "set")[label] == naively(drawn, label, score)
    for item in found.items:
        original = tmp_path / "set" / "drawn" / "images" / item.source
        assert (found.images / item.file).read_bytes() == original.read_bytes()
        assert item.prompt.startswith("a photo of")


def test_goes_on_after_a_failure_in_the_middle_and_then_does_nothing(materials: Make, tmp_path: Path) -> None:
    whole = make_debug_set("ours", materials(), OPTIONS, tmp_path / "whole")
    with pytest.raises(GeneratorFailed):
        make_debug_set("ours", materials(Painter(fails_at=8)), OPTIONS, tmp_path / "set")
    late = Painter()
    found = make_debug_set("ours", materials(late), OPTIONS, tmp_path / "set")
    assert len(late.painted) == 1
    assert found.items == whole.items
    last = Painter()
    assert make_debug_set("ours", materials(last), OPTIONS, tmp_path / "set") == found
    assert last.painted == []
    assert last.learned == {}
    (found.images / found.items[4].file).unlink()  # what is lost afterwards is made again, and the same
    assert make_debug_set("ours", materials(last), OPTIONS, tmp_path / "set") == found
    assert len(last.painted) == 1


def test_another_option_material_or_generator_is_another_set(materials: Make, data: Path, tmp_path: Path) -> None:
    make_debug_set("ours", materials(), OPTIONS, tmp_path / "set")
    more = StrategyOptions(budget=3, threads=1)
    make_debug_set("ours", materials(pool=None, failures=None), more, tmp_path / "set")  # it needs neither
    other = Painter()
    other.identity = "another brush"
    attempts = [
        ("budget", "ours", materials(), StrategyOptions(budget=4)),
        ("seed", "ours", materials(), StrategyOptions(budget=3, seed=1)),
        ("concepts", "ours", materials(concepts={}), OPTIONS),
        ("train", "ours", materials(train=data / "val"), OPTIONS),
        ("generator", "ours", materials(other), OPTIONS),
        ("concepts, strategy", "g-tg", materials(), OPTIONS),
        ("classes", "ours", materials(classes=("den", "attic")), OPTIONS),
    ]
    for what, strategy, given, options in attempts:
        with pytest.raises(OptionInvalid, match=f"debug set with another {what}"):
            make_debug_set(strategy, given, options, tmp_path / "set")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_missing_is_named(materials: Make, tmp_path: Path, strategy: str) -> None:
    for need in STRATEGIES[strategy].needs:
        with pytest.raises(OptionInvalid, match=f"{strategy} needs .*; give {need}") as caught:
            make_debug_set(strategy, replace(materials(), **{need: None}), OPTIONS, tmp_path / "set")
        assert caught.value.field == need
    assert not (tmp_path / "set").exists()


def test_the_filter_needs_failures(materials: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="give failures"):
        make_debug_set("g-llm", materials(failures=None), StrategyOptions(filter_factor=2), tmp_path / "set")


def test_what_cannot_be_is_told(materials: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="no strategy 'best'; choose one of s-random"):
        make_debug_set("best", materials(), OPTIONS, tmp_path / "1")
    with pytest.raises(OptionInvalid, match="knows no class office"):
        make_debug_set("s-random", materials(classes=("den", "office")), OPTIONS, tmp_path / "2")
    with pytest.raises(OptionInvalid, match="cannot be the name of a folder"):
        make_debug_set("g-llm", materials(classes=("../den",)), OPTIONS, tmp_path / "3")
    with pytest.raises(OptionInvalid, match="needs classes, each once"):
        make_debug_set("g-llm", materials(classes=()), OPTIONS, tmp_path / "3")
    with pytest.raises(DataError, match="There is no folder"):
        make_debug_set("s-random", materials(pool=tmp_path / "none"), OPTIONS, tmp_path / "4")
    with pytest.raises(DataError, match="cannot be read"):
        make_debug_set("g-llm", materials(model=tmp_path / "none.mar"), OPTIONS, tmp_path / "5")
    for wrong in ({"budget": 0}, {"seed": -1}, {"filter_factor": 0}, {"similarity": "far"}, {"uncertainty": "gut"}):
        with pytest.raises(OptionInvalid):
            StrategyOptions(**wrong)  # type: ignore[arg-type]


def test_a_pool_without_a_class_is_told_and_the_others_are_chosen(materials: Make, tmp_path: Path) -> None:
    pool = draw_folders(tmp_path / "pool", 2, seed=5, classes=CLASSES[:2])
    found = make_debug_set("s-active-learning", materials(pool=pool), OPTIONS, tmp_path / "set")
    assert found.counts == {"attic": 2, "bathroom": 2}
    assert "den: 0 images, where 3 are wanted" in found.told


def test_the_debug_set_is_what_training_reads(materials: Make, data: Path, tmp_path: Path) -> None:
    generator = FolderGenerator(data / "pool")
    found = make_debug_set("ours", materials(generator), OPTIONS, tmp_path / "set")
    train, _ = find_splits(data, val_fraction=0.2, seed=0, extra=[found.images])
    alone = list_folders(data / "train")
    assert len(train) == len(alone) + 9
    assert all(train.read(i) for i in range(len(train)))


def test_images_made_elsewhere_are_used_once_and_too_few_are_told_at_once(materials: Make, tmp_path: Path) -> None:
    generator = FolderGenerator(draw_folders(tmp_path / "made", 10, seed=9))
    with pytest.raises(GeneratorFailed, match="10 readable images of attic, and 11 are wanted"):
        make_debug_set("ours", materials(generator), StrategyOptions(budget=11), tmp_path / "set")
    assert not (tmp_path / "set" / "images").exists()
    found = make_debug_set("ours", materials(generator), StrategyOptions(budget=10), tmp_path / "set")
    assert len({item.digest for item in found.items}) == 30


@pytest.mark.parametrize("factor", [1, 2])
def test_images_made_elsewhere_may_come_and_go_until_the_set_is_complete(
    factor: int, materials: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = draw_folders(tmp_path / "made", 8, seed=9), tmp_path / "set"
    options = StrategyOptions(budget=4, filter_factor=factor)
    with monkeypatch.context() as patch:
        handed_out = FolderGenerator.draw
        patch.setattr(debug_set, "DRAWN_AT_ONCE", 5)

        def until_a_picture_breaks(self: FolderGenerator, prompts: Any, seeds: Any) -> Any:
            if prompts[0].label == "bathroom":
                (made / "attic" / "00.png").write_bytes(b"no picture")
                (made / "bathroom" / "01.png").unlink()
                raise GeneratorFailed("an image of bathroom cannot be read any more")
            return handed_out(self, prompts, seeds)

        patch.setattr(FolderGenerator, "draw", until_a_picture_breaks)
        with pytest.raises(GeneratorFailed, match="cannot be read any more"):
            make_debug_set("ours", materials(FolderGenerator(made)), options, out)
    assert list(out.rglob("images/*/*.jpg"))
    for label in CLASSES:
        draw_folders(tmp_path / "more", 2, seed=10, classes=[label])
        for path in (tmp_path / "more" / label).iterdir():
            path.rename(made / label / f"more-{path.name}")
    found = make_debug_set("ours", materials(FolderGenerator(made)), options, out)
    assert found.counts == dict.fromkeys(CLASSES, 4)
    assert len({item.digest for item in found.items}) == 12, "each once"
    assert make_debug_set("ours", materials(FolderGenerator(made)), options, out) == found
    (made / "den" / "00.png").unlink()
    with pytest.raises(OptionInvalid, match="is complete, and the images that it was made from have changed"):
        make_debug_set("ours", materials(FolderGenerator(made)), options, out)
