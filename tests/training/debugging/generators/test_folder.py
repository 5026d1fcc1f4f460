"""Images made elsewhere: by prompt first, then by class, each once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saaa.errors import DataError, GeneratorFailed
from training.debugging.debug_set import Store, announce, draw, planned_prompts
from training.debugging.generators.folder import PROMPTS, FolderGenerator
from training.debugging.prompts import Prompt, concept_prompts

ASKED = concept_prompts({"den": ["sofa", "lamp"], "attic": ["rug"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures whose grey is their number; den 1 and 3 are of sofas, 4 of lamps, 5 of something else."""
    root = tmp_path / "made"
    for label, numbers in {"den": range(1, 7), "attic": range(101, 103)}.items():
        (root / label).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(np.full((6, 6, 3), number, np.uint8)).save(root / label / f"{number}.png")
    lines = [("1", "A den  with a sofa"), ("3", "a den with a sofa"), ("4", "a den with a lamp"), ("5", "a dog")]
    (root / PROMPTS).write_text("".join(json.dumps({"file": f"den/{n}.png", "prompt": p}) + "\n" for n, p in lines))
    return root


def greys(generator: FolderGenerator, asked: list[tuple[Prompt, int]]) -> list[int]:
    pictures = generator.draw([prompt for prompt, _ in asked], [seed for _, seed in asked])
    return [int(pixels[0, 0, 0]) for pixels in pictures]


def test_by_prompt_first_then_what_has_no_prompt_then_the_rest(folder: Path) -> None:
    sofa, lamp = ASKED["den"]
    asked = [(sofa, 1), (lamp, 2), (lamp, 3), (sofa, 4), (sofa, 5), (lamp, 6), (ASKED["attic"][0], 7)]
    generator = FolderGenerator(folder)
    generator.plan(asked)
    assert greys(generator, asked) == [1, 4, 2, 3, 6, 5, 101]
    assert greys(generator, asked[::-1][:3]) == [101, 5, 6]
    assert greys(FolderGenerator(folder), [(sofa, 9)]) == [1]


def test_a_stopped_set_gets_the_same_images(folder: Path, tmp_path: Path) -> None:
    items = planned_prompts({"den": ASKED["den"]}, 6, seed=0)
    store = Store(tmp_path / "set", {})
    store.plan(items)
    first = FolderGenerator(folder)
    announce(first, items)
    half = first.draw([i.asked() for i in items[:3]], [i.seed or 0 for i in items[:3]])
    second = FolderGenerator(folder)
    announce(second, items)
    rest = second.draw([i.asked() for i in items[3:]], [i.seed or 0 for i in items[3:]])
    assert sorted(int(p[0, 0, 0]) for p in (*half, *rest)) == [1, 2, 3, 4, 5, 6]
    draw(store, second)
    assert store.finish().counts == {"den": 6}


def test_too_few_or_unreadable_images_are_told_before_anything_is_drawn(folder: Path) -> None:
    asked = [(ASKED["attic"][0], seed) for seed in range(2)]
    FolderGenerator(folder).plan(asked)
    (folder / "attic" / "102.png").write_bytes(b"no picture")
    generator = FolderGenerator(folder)
    with pytest.raises(GeneratorFailed, match="1 readable images of attic, and 2 are wanted"):
        generator.plan(asked)
    with pytest.raises(GeneratorFailed, match="0 readable images of cellar"):
        generator.plan([(Prompt(label="cellar", text="a cellar"), 0)])
    generator.plan(asked[:1])
    (folder / "attic" / "101.png").unlink()
    with pytest.raises(GeneratorFailed, match="cannot be read any more"):
        generator.draw([ASKED["attic"][0]], [0])


def test_its_supply_is_another_when_images_or_prompts_change(folder: Path) -> None:
    names = {FolderGenerator(folder).supply, FolderGenerator(folder).supply}
    assert len(names) == 1
    (folder / "den" / "6.png").unlink()
    names.add(FolderGenerator(folder).supply)
    (folder / PROMPTS).unlink()
    names.add(FolderGenerator(folder).supply)
    assert len(names) == 3


@pytest.mark.parametrize(
    "line", ['{"file": "../x.png", "prompt": "p"}', '{"file": "den/1.png", "prompt": 3}', "[]", "{", '{"file": ["a"]}']
)
def test_broken_prompts_are_told(folder: Path, line: str) -> None:
    (folder / PROMPTS).write_text(line + "\n")
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        FolderGenerator(folder)


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        FolderGenerator(tmp_path / "none")
    with pytest.raises(DataError, match="class folders"):
        FolderGenerator(tmp_path)
