"""The models and figures of the attribution benchmark: labels follow what is left, perfect maps get perfect figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.objects import NAMES, Phase, Recipe, Scenes, _kept, _labels, _patch_labels, build, trained
from benchmarks.quality import RANDOM, Case, Judge
from saaa.work import ExplainOptions

SHORT = Recipe(
    width=32,
    depth=2,
    heads=2,
    batch=4,
    phases=(Phase(epochs=1, rate=1e-3, token_weight=0.5, removal=0.5, objects=0.2),) * 2,
)


def scenes(count: int = 8, size: int = 32) -> Scenes:
    """A square of one kind in each picture."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    kinds = np.zeros((count, size, size), np.uint8)
    for place in range(count):
        kinds[place, 8:16, 8:24] = 1 + place % len(NAMES)
    return Scenes(images, kinds)


def test_labels_follow_what_is_left() -> None:
    kinds = scenes(3).kinds
    keep = np.ones_like(kinds, bool)
    keep[1, :, 9:] = False  # a sixteenth of its square is left
    keep[2] = False
    labels = _labels(kinds, keep)
    assert labels[0, 0] == 1
    assert labels[1, 1] == pytest.approx((1 / 16 - 0.05) / 0.3)
    assert labels[2].sum() == 0
    assert labels.sum() == labels[0, 0] + labels[1, 1]


def test_patch_labels_are_shares_of_each_patch() -> None:
    kinds = scenes(1).kinds
    shares = _patch_labels(kinds, 16).numpy()
    assert shares.shape == (4, len(NAMES) + 1)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # Rows 8 to 16 and columns 8 to 24 are a quarter of each of the two upper patches of 16 x 16.
    np.testing.assert_allclose(shares[:, 1], [0.25, 0.25, 0, 0])


def test_whole_objects_are_removed_with_every_patch_they_touch() -> None:
    phase = Phase(epochs=1, rate=1e-3, token_weight=0.0, removal=1.0, objects=1.0)
    kinds = scenes(1).kinds[0]
    seen = {bytes(_kept(kinds, 4, phase, np.random.default_rng(seed))) for seed in range(20)}
    whole, gone = np.ones((4, 4), bool), np.ones((4, 4), bool)
    gone[1, 1:3] = False
    assert seen == {bytes(whole), bytes(gone)}


def test_compiled_maps_are_those_of_torch() -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    from benchmarks.compiled_maps import beside_torch, side_by_side

    torch.manual_seed(0)
    classifier = build(SHORT, 32, (0.5, 0.4, 0.3)).eval().requires_grad_(False)
    inputs = classifier.preprocess(torch.from_numpy(scenes(6).images))
    regions = torch.zeros((1, 32, 32), dtype=torch.bool)
    regions[0, 8:16, 8:24] = True
    cases = [Case(one, target, regions) for target, one in enumerate(inputs)]
    judge = Judge(classifier=classifier, probability=nn.Sigmoid())
    found = beside_torch(judge, cases, [None] * len(cases), 2)
    for name, value in found["torch"].items():
        assert found["openvino_fp32"][name] == pytest.approx(value, abs=1e-3), name
    lines = side_by_side(found, ["pointing", "mprt"]).splitlines()
    assert lines[2].split() == ["torch", "openvino_fp32", "openvino_bf16"]
    assert [line.split()[0] for line in lines[3:]] == ["pointing", "mprt"]


def test_training_is_repeatable_and_goes_on_from_what_is_there(tmp_path: Path) -> None:
    first = trained(SHORT, scenes(), tmp_path / "a").net.state_dict()
    again = trained(SHORT, scenes(), tmp_path / "b").net.state_dict()
    (tmp_path / "b" / f"objects-{SHORT.digest(2)}.safetensors").unlink()
    resumed = trained(SHORT, scenes(), tmp_path / "b").net.state_dict()
    for key, value in first.items():
        assert torch.equal(value, again[key])
        assert torch.equal(value, resumed[key])


class Quadrant(nn.Module):
    """The logit of kind 0 is 20 where the upper left quarter is bright, else -20."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(inputs), len(NAMES)), -20.0)
        logits[:, 0] = 40 * inputs[:, :, :16, :16].mean(dim=(1, 2, 3)) - 20
        return logits


def test_a_map_that_is_the_mask_gets_every_point() -> None:
    classifier = build(SHORT, 32, (0.5, 0.5, 0.5)).eval()
    classifier.net = Quadrant()
    masks = torch.zeros((3, 32, 32), dtype=torch.bool)
    masks[0, :16, :16] = masks[1, 16:, :16] = masks[2, :, 16:] = True
    case = Case(torch.ones((3, 32, 32)), 0, masks)
    judge = Judge(classifier=classifier, probability=nn.Sigmoid())
    referee = judge.referee([case])
    np.testing.assert_allclose(referee[0], [40, 0, 0], atol=1e-4)
    means = judge.measure([case], referee, ExplainOptions(method="region_shapley")).means()
    for name in ("pointing", "mass", "rank", "object_top1", "shapley_cosine"):
        assert means[name] == pytest.approx(1), name
    assert means["deletion"] < 0.3
    assert means["insertion"] > 0.7
    guessed = judge.measure([case] * 40, referee * 40, ExplainOptions(method=RANDOM)).means()
    assert guessed["mass"] == pytest.approx(0.25, abs=0.15)
    assert guessed["deletion"] > means["deletion"]
