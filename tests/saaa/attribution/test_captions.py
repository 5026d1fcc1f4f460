"""Explaining captions: against a plain second implementation, finite differences, single calls, and bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from saaa.attribution import Wanted, attribute_caption, caption_methods_for
from saaa.errors import AttributionFailed, OptionInvalid, SceneGraphError
from saaa.models.captioner import BOS
from saaa.models.guided import GuidedCaptioner
from saaa.role_graph import RoleGraph
from saaa.work import ExplainOptions, TargetKind
from tests.tiny_models import SIZE, WORDS, make_captioner, make_graph, make_pixels

METHODS = ("attention_x_gradient", "gradient_x_input", "attention")
GRADIENT_METHODS = METHODS[:2]


def lively(dtype: torch.dtype = torch.float32) -> GuidedCaptioner:
    """A captioner whose words hang on the image, with features that are not standardised already."""
    captioner = make_captioner()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in captioner.captioner.parameters():
            parameter.normal_(std=0.3)
        for name in ("region", "image"):
            getattr(captioner.features, f"{name}_mean").normal_(std=0.1)
            getattr(captioner.features, f"{name}_scale").uniform_(0.5, 2)
    return captioner.to(dtype)


def lone_graph() -> RoleGraph:
    box = np.array([[5, 8, 41.5, 33]], np.float32)
    return RoleGraph(np.zeros(1, int), np.zeros(1, int), box, np.zeros((0, 3), int))


GRAPHS = [make_graph(0), lone_graph(), make_graph(1), make_graph(2), lone_graph()]
CAPTIONS = [
    ("a", "red", "chair", "on", "a", "table"),
    ("lamp",),
    ("a", "green", "lamp"),
    ("a", "table", "is", "near", "a", "green", "chair", "on", "a", "red", "table"),
    ("red", "red"),
]
WANTED = [
    Wanted(words=(1, 5, 2), nodes=(3, 0)),
    Wanted(words=(0,)),
    Wanted(),
    Wanted(words=(10, 0), nodes=(2, 1)),
    Wanted(nodes=(0,)),
]


@pytest.fixture(scope="module")
def captioner() -> GuidedCaptioner:
    return lively()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(make_pixels(len(GRAPHS)))


class Plain:
    """One image, one caption, word by word, with every gradient taken through RoIAlign itself."""

    def __init__(self, captioner: GuidedCaptioner, pixels: torch.Tensor, graph: RoleGraph, words: tuple[str, ...]):
        self.captioner, self.words = captioner, words
        self.seen = captioner.see(pixels[None], [graph])
        self.levels = [level.clone().requires_grad_() for level in self.seen.levels]
        self.regions, self.image = captioner.features.pool(self.levels, self.seen.boxes)
        self.logits, self.chances, self.attention = self.unroll(self.regions, self.image)

    def unroll(self, regions, image):
        model, decoder = self.captioner.captioner, self.captioner.captioner.decoder
        state, guide = model.begin(regions[None], image, self.seen.graphs)
        ids = [BOS, *(WORDS.index(word) for word in self.words)]
        logits, chances, attention = [], [], []
        for last, word in itertools.pairwise(ids):
            state = decoder.step(state, guide, decoder.word_gates(torch.tensor([last])), decoder.weights())
            logits.append(decoder.score_words(state.hidden2)[0, word])
            chances.append(decoder.log_probabilities(state.hidden2)[0, word])
            attention.append(state.attention[0])
        return torch.stack(logits), torch.stack(chances), torch.stack(attention)

    def shares(self, kind: TargetKind, index: int) -> torch.Tensor:
        if kind is TargetKind.NODE:
            return self.attention[:, index].detach()
        return torch.eye(len(self.words), dtype=self.logits.dtype)[index]

    def explain(self, kind: TargetKind, index: int, method: str):
        shares = self.shares(kind, index)
        looked = sum(s * row for s, row in zip(shares, self.attention.detach(), strict=True)) / shares.sum()
        if method == "attention":
            return None, looked
        features = self.captioner.features
        total = (shares * self.logits).sum()
        to_regions, to_image = torch.autograd.grad(total, [self.regions, self.image], retain_graph=True)
        if method == "attention_x_gradient":
            to_regions = to_regions * looked[:, None]
        pooled = [self.regions, self.image]
        raw = torch.autograd.grad(pooled, self.levels, [to_regions, to_image], retain_graph=True)
        means = [to_regions * features.region_mean, to_image * features.image_mean]
        away = torch.autograd.grad(pooled, self.levels, means, retain_graph=True)
        parts = [(g * level - m).sum(1)[0] for g, level, m in zip(raw, self.levels, away, strict=True)]
        rows = max(len(part) for part in parts)
        values = sum(np.kron(p.detach().numpy(), np.full((rows // len(p),) * 2, (len(p) / rows) ** 2)) for p in parts)
        return values, (to_regions * self.regions).sum(1).detach()


@pytest.mark.parametrize("method", METHODS)
def test_maps_and_node_weights_are_those_of_the_plain_way(captioner, pixels, method):
    found = attribute_caption(captioner, pixels, GRAPHS, CAPTIONS, WANTED, ExplainOptions(method=method))
    assert [[(m.kind, m.target) for m in maps] for maps in found] == [
        [(TargetKind.WORD, w) for w in wanted.words] + [(TargetKind.NODE, n) for n in wanted.nodes] for wanted in WANTED
    ]
    for image, maps in enumerate(found):
        plain = Plain(captioner, pixels[image], GRAPHS[image], CAPTIONS[image])
        for m in maps:
            values, weights = plain.explain(m.kind, m.target, method)
            assert m.method == method
            assert m.node_weights.shape == (len(GRAPHS[image]),)
            np.testing.assert_allclose(m.node_weights, weights, atol=1e-5 * float(weights.abs().max()))
            if values is not None:
                np.testing.assert_allclose(m.values, values, atol=2e-5 * np.abs(values).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_single_calls_give(captioner, pixels, method):
    options = ExplainOptions(method=method, deletion=True)
    together = attribute_caption(captioner, pixels, GRAPHS, CAPTIONS, WANTED, options)
    for k, maps in enumerate(together):
        for place, m in enumerate(maps):
            one = Wanted(words=(m.target,)) if m.kind is TargetKind.WORD else Wanted(nodes=(m.target,))
            ((alone,),) = attribute_caption(
                captioner, pixels[k : k + 1], GRAPHS[k : k + 1], CAPTIONS[k : k + 1], [one], options
            )
            assert np.abs(alone.values - m.values).max() <= 1e-5 * np.abs(m.values).max(), place
            assert np.abs(alone.node_weights - m.node_weights).max() <= 1e-5 * np.abs(m.node_weights).max()
            # Rounding may swap pixels of equal value at the edge of the tenth.
            assert alone.deletion_drop == pytest.approx(m.deletion_drop, abs=5e-3)


@pytest.mark.parametrize("target", [Wanted(words=(2,)), Wanted(nodes=(1,))])
def test_gradients_agree_with_finite_differences(target):
    """Node weights: how fast the target grows as a region's feature is stretched; map: as a cell of the maps is."""
    captioner = lively(torch.float64)
    captioner.features.region_mean.zero_()
    captioner.features.image_mean.zero_()
    pixels, graph, words = torch.from_numpy(make_pixels(1)), GRAPHS[0], CAPTIONS[0]
    ((found,),) = attribute_caption(
        captioner, pixels, [graph], [words], [target], ExplainOptions(method="gradient_x_input")
    )
    plain = Plain(captioner, pixels[0], graph, words)
    shares = plain.shares(found.kind, found.target)
    step = 1e-4

    def slope(of) -> float:
        with torch.no_grad():
            ends = [(shares * plain.unroll(*of(1 + sign * step))[0]).sum() for sign in (1, -1)]
        return float(ends[0] - ends[1]) / (2 * step)

    def stretched_region(node, by):
        regions = plain.regions.detach().clone()
        regions[node] *= by
        return regions, plain.image

    def stretched_cells(row, column, by):
        levels = [level.detach().clone() for level in plain.levels]
        for level in levels:
            cell = len(levels[0][0, 0]) // level.shape[-1]
            if row % cell == column % cell == 0:
                level[..., row // cell, column // cell] *= by
        return captioner.features.pool(levels, plain.seen.boxes)

    for node, weight in enumerate(found.node_weights):
        assert weight == pytest.approx(slope(lambda by, node=node: stretched_region(node, by)), rel=1e-4, abs=1e-7)
    # The coarsest cells cover the finest ones exactly, so blocks of the map add up to what stretching them does.
    coarse = plain.levels[-1].shape[-1]
    side = len(found.values) // coarse
    for row, column in ((0, 0), (1, 1), (0, 1)):
        block = found.values[row * side : (row + 1) * side, column * side : (column + 1) * side]
        inside = [(row * side + r, column * side + c) for r in range(side) for c in range(side)]
        wanted = sum(slope(lambda by, place=place: stretched_cells(*place, by)) for place in inside)
        assert float(block.sum()) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_a_gradient_map_sums_to_the_node_weights_and_the_images_share(captioner, pixels, method):
    found = attribute_caption(
        captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], WANTED[:1], ExplainOptions(method=method)
    )
    plain = Plain(captioner, pixels[0], GRAPHS[0], CAPTIONS[0])
    for m in found[0]:
        shares = plain.shares(m.kind, m.target)
        slopes = torch.autograd.grad((shares * plain.logits).sum(), [plain.regions, plain.image], retain_graph=True)
        looked = (shares @ plain.attention.detach()) / shares.sum() if method == GRADIENT_METHODS[0] else torch.ones(1)
        geometry = (slopes[0] * plain.regions)[:, -32:].sum(1) * looked
        image = (slopes[1] * plain.image).sum()
        wanted = m.node_weights.sum() + float((image - geometry.sum()).detach())
        np.testing.assert_allclose(m.values.sum(), wanted, rtol=1e-4, atol=1e-4 * np.abs(m.values).max())


def test_attention_maps_are_shares(captioner, pixels):
    found = attribute_caption(captioner, pixels, GRAPHS, CAPTIONS, WANTED, ExplainOptions(method="attention"))
    for maps in found:
        for m in maps:
            assert m.node_weights.sum() == pytest.approx(1, abs=1e-5)
            assert (m.node_weights >= 0).all()
            assert m.values.sum() == pytest.approx(1, abs=1e-5)  # the boxes lie inside
            assert m.values.shape == (SIZE // 8, SIZE // 8)


def test_the_deletion_drop_is_that_of_the_map_enlarged_and_removed(captioner, pixels):
    options = ExplainOptions(method="gradient_x_input", deletion=True)
    (maps,) = attribute_caption(captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], WANTED[:1], options)
    plain = Plain(captioner, pixels[0], GRAPHS[0], CAPTIONS[0])
    for m in maps:
        large = nn.Upsample((SIZE, SIZE), mode="bilinear")(torch.from_numpy(m.values)[None, None])[0, 0].numpy()
        gone = np.zeros(SIZE * SIZE, bool)
        gone[np.argsort(-large.ravel(), kind="stable")[: round(SIZE * SIZE / 10)]] = True
        inputs = captioner.features.normalise(pixels[:1])
        inputs[:, :, torch.from_numpy(gone.reshape(SIZE, SIZE))] = 0
        with torch.no_grad():
            after = plain.unroll(*captioner.features.pool(captioner.features.backbone(inputs), plain.seen.boxes))[1]
        shares = plain.shares(m.kind, m.target)
        drop = float((shares * (plain.chances.detach().exp() - after.exp())).sum() / shares.sum())
        assert m.deletion_drop == pytest.approx(drop, abs=1e-5)
        assert -1 <= m.deletion_drop <= 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_what_was_seen_already_need_not_be_seen_again(captioner, pixels, mode):
    with mode():
        given = pixels.clone()
        seen = captioner.see(given, GRAPHS)
        again = attribute_caption(captioner, given, GRAPHS, CAPTIONS, WANTED)
        shared = attribute_caption(captioner, given, GRAPHS, CAPTIONS, WANTED, seen=seen)
    for one, two in zip(again, shared, strict=True):
        assert all(np.array_equal(a.values, b.values) for a, b in zip(one, two, strict=True))


def test_nothing_asked_gives_nothing(captioner, pixels):
    assert attribute_caption(captioner, pixels[:0], [], [], []) == []
    assert attribute_caption(captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], [Wanted()]) == [()]


def test_the_default_is_the_first_method_listed(captioner, pixels):
    offered = caption_methods_for(captioner)
    assert tuple(method.name for method in offered) == METHODS
    assert all(method.targets == (TargetKind.WORD, TargetKind.NODE) for method in offered)
    assert all(method.cost_forwards >= 1 and method.reference for method in offered)
    ((found,),) = attribute_caption(captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], [Wanted(words=(0,))])
    assert found.method == METHODS[0]


class NoCompute(nn.Module):
    def forward(self, *_):
        raise AssertionError("this was to be refused before any computing")


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"captions": [("a", "blue", "chair")]}, "caption.text", "'blue'"),
        ({"captions": [("a", "<UNK>")]}, "caption.text", "'<UNK>'"),
        ({"captions": [("a", "<EOS>", "a")]}, "caption.text", "'<EOS>'"),
        ({"captions": [()]}, "caption.text", "0 words; give 1 to 50"),
        ({"captions": [("a",) * 51]}, "caption.text", "51 words; give 1 to 50"),
        ({"captions": []}, "caption.text", "1 images need"),
        ({"wanted": [Wanted(words=(3,))]}, "attribution.words", "no word 3: the caption has 3 words"),
        ({"wanted": [Wanted(words=(0, -1))]}, "attribution.words", "no word -1"),
        ({"wanted": [Wanted(nodes=(4,))]}, "attribution.nodes", "no node 4: the graph has 4 nodes"),
        ({"graphs": []}, "graph", "1 images came with 0 graphs"),
        ({"options": ExplainOptions(method="grad_cam")}, "attribution.word_method", "attention_x_gradient, gradient_x"),
        ({"options": ExplainOptions(steps=0)}, "attribution.steps", "steps is 0"),
    ],
)
def test_bad_input_is_refused_before_any_computing(pixels, changes, field, says):
    captioner = lively()
    captioner.features.backbone = NoCompute()
    given = {"graphs": [make_graph()], "captions": [("a", "red", "chair")], "wanted": [Wanted(words=(0,))], **changes}
    options = given.pop("options", ExplainOptions())
    with pytest.raises(OptionInvalid, match=says) as caught:
        attribute_caption(captioner, pixels[:1], given["graphs"], given["captions"], given["wanted"], options)
    assert caught.value.field == field


def test_a_graph_beyond_the_limit_is_refused(captioner, pixels):
    large = RoleGraph(np.zeros(41, int), np.zeros(41, int), np.zeros((41, 4)), np.zeros((0, 3), int))
    with pytest.raises(SceneGraphError, match="41 nodes"):
        attribute_caption(captioner, pixels[:1], [large], [("a",)], [Wanted(words=(0,))])


def footprint(captioner: GuidedCaptioner) -> list[object]:
    marks: list[object] = [(name, module.training) for name, module in captioner.named_modules()]
    marks += [(name, p.requires_grad, p.grad is None) for name, p in captioner.named_parameters()]
    for module in captioner.modules():
        marks += [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
    return [*marks, {name: float(value.double().sum()) for name, value in captioner.state_dict().items()}]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", ["success", "bad target", "failing module", "not finite"])
def test_the_captioner_is_left_as_it_was(pixels, method, ending):
    captioner = lively()
    captioner.train()
    captioner.captioner.decoder.query.eval()
    captioner.captioner.requires_grad_(True)
    captioner.captioner.decoder.score.requires_grad_(False)
    wanted = [Wanted(words=(99 if ending == "bad target" else 0,))]
    if ending == "failing module":
        captioner.captioner.decoder.update = NoCompute()
    if ending == "not finite":
        captioner.captioner.encoder.project.bias.data.fill_(math.inf)
    before = footprint(captioner)
    error = {"bad target": OptionInvalid, "failing module": AssertionError, "not finite": AttributionFailed}.get(ending)
    options = ExplainOptions(method=method, deletion=True)
    if error is None:
        attribute_caption(captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], wanted, options)
    else:
        with pytest.raises(error):
            attribute_caption(captioner, pixels[:1], GRAPHS[:1], CAPTIONS[:1], wanted, options)
    after = footprint(captioner)
    assert str(before) == str(after)  # as text: a weight may be infinite
