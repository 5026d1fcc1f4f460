import numpy as np
import pytest
import timm
import torch

from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.features import FeatureConfig, FeatureExtractor, box_geometry

SIZE = 64
BOXES = [
    torch.tensor([[0.0, 0.0, 64.0, 64.0], [8.0, 16.0, 24.0, 40.0]]),
    torch.tensor([[30.0, 2.0, 60.0, 20.0]]),
]


def make(**options) -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(
        FeatureConfig(**{"architecture": "test_efficientnet", "input_size": SIZE, "levels": (1, 2), **options})
    )


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))


def test_sizes_are_as_promised():
    extractor = make(grid=3)
    regions, image = extractor(pixels(2), BOXES)
    assert regions.shape == (3, extractor.region_size)
    assert image.shape == (2, extractor.image_size)
    assert extractor.region_size == extractor.image_size * 9 + 32


def test_every_box_inside_a_plain_picture_looks_alike_but_for_where_it_is():
    extractor = make(grid=1, levels=(0,))
    grey = torch.full((1, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    # Well inside: near the border the convolutions see their padding.
    regions, _ = extractor(grey, [torch.tensor([[24.0, 24.0, 40.0, 40.0], [28.0, 30.0, 36.0, 36.0]])])
    look = extractor.image_size
    assert torch.allclose(regions[0, :look], regions[1, :look], atol=1e-3)
    assert (regions[0, look:] - regions[1, look:]).abs().max() > 0.1


def test_cells_follow_the_box():
    """The left cell of a box sees what lies left: moving paint there changes the left cell more than the
    right one."""
    extractor = make(grid=2, levels=(0,))
    plain = torch.full((1, SIZE, SIZE, 3), 128, dtype=torch.uint8)
    painted = plain.clone()
    painted[:, 20:44, 4:20] = torch.tensor([250, 10, 10], dtype=torch.uint8)
    box = [torch.tensor([[0.0, 16.0, 64.0, 48.0]])]
    change = (extractor(painted, box)[0] - extractor(plain, box)[0])[0, : extractor.image_size * 4]
    cells = change.view(-1, 2, 2).abs().sum((0, 1))
    assert cells[0] > 5 * cells[1]


def test_images_of_a_batch_do_not_see_each_other():
    extractor = make()
    both_regions, both_image = extractor(pixels(2), BOXES)
    for k, rows in ((0, slice(0, 2)), (1, slice(2, 3))):
        regions, image = extractor(pixels(2)[k : k + 1], BOXES[k : k + 1])
        assert torch.allclose(regions, both_regions[rows], rtol=1e-4, atol=1e-5)
        assert torch.allclose(image[0], both_image[k], rtol=1e-4, atol=1e-5)


def test_standardised_features_have_mean_zero_and_deviation_one():
    extractor = make()
    boxes = [torch.rand(6, 4).sort(1).values * SIZE for _ in range(20)]
    raw = extractor(pixels(20), boxes)
    extractor.standardise_by(*raw)
    for values in extractor(pixels(20), boxes):
        deviation, mean = torch.std_mean(values, dim=0, correction=0)
        assert mean.abs().max() < 1e-3
        alive = deviation > 1e-2
        assert alive.float().mean() > 0.9
        assert torch.allclose(deviation[alive], torch.ones(int(alive.sum())), atol=1e-2)
    # Doing it again changes nothing.
    before = extractor.region_scale.clone()
    extractor.standardise_by(*extractor(pixels(20), boxes))
    assert torch.allclose(before, extractor.region_scale, rtol=1e-2)


def test_the_backbone_of_a_classifier_is_taken_over():
    torch.manual_seed(1)
    net = timm.create_model("test_efficientnet", num_classes=7)
    extractor = make()
    extractor.load_backbone(net.state_dict())
    wanted = net.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in extractor.backbone.state_dict().items())


def test_a_transformer_gives_features_too():
    extractor = make(architecture="test_vit", input_size=SIZE, levels=(0, 3), grid=2)
    regions, image = extractor(pixels(2), BOXES)
    assert torch.isfinite(regions).all()
    assert torch.isfinite(image).all()
    extractor.load_backbone(timm.create_model("test_vit", img_size=SIZE).state_dict())


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ArchiveError, match="do not fit test_efficientnet"):
        make().load_backbone(timm.create_model("test_resnet").state_dict())


def test_description_builds_the_same_again():
    extractor = make(grid=3, resize="crop", crop_fraction=0.9)
    assert FeatureExtractor.described(extractor.describe()).config == extractor.config


def test_geometry_tells_boxes_apart_and_not_sizes_of_input():
    boxes = torch.tensor([[0.0, 0.0, 32.0, 64.0], [32.0, 0.0, 64.0, 64.0]])
    small, large = box_geometry(boxes, 64), box_geometry(boxes * 2, 128)
    assert torch.allclose(small, large, atol=1e-6)
    assert (small[0] - small[1]).abs().max() > 0.5


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"architecture": "no_such_net"}, "model"),
        ({"levels": ()}, "levels"),
        ({"levels": (2, 1)}, "levels"),
        ({"grid": 0}, "grid"),
        ({"input_size": 8}, "input_size"),
        ({"resize": "stretch"}, "resize"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
    ],
)
def test_impossible_options_are_refused(wrong, field):
    with pytest.raises(OptionInvalid) as caught:
        make(**wrong)
    assert caught.value.field == field


def test_levels_that_a_backbone_does_not_have_are_refused():
    with pytest.raises(OptionInvalid, match="feature maps"):
        make(levels=(0, 40))


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(OptionInvalid, match="uint8 pixels"):
        make()(pixels(1)[:, :32], BOXES[:1])


@pytest.mark.parametrize("options", [{}, {"grid": 3, "levels": (0, 2)}])
def test_shares_are_what_the_gradient_of_pooling_says(options):
    """Against RoIAlign's own gradient: cells of the maps times what they do to the features, less the mean's part."""
    extractor = make(**options).double()
    torch.manual_seed(2)
    for name in ("region", "image"):
        getattr(extractor, f"{name}_mean").normal_()
        getattr(extractor, f"{name}_scale").uniform_(0.5, 2)
    levels = [torch.randn_like(level).requires_grad_() for level in extractor.backbone(extractor.normalise(pixels(1)))]
    boxes = [torch.cat([BOXES[0], torch.tensor([[60.5, 0.0, 64.0, 3.0], [7.0, 7.0, 7.0, 7.0]])])]
    regions, image = extractor.pool(levels, boxes)
    slopes = [
        torch.randn(3, *regions.shape, dtype=torch.float64),
        torch.randn(3, *image.shape[1:], dtype=torch.float64),
    ]
    found = extractor.shares([level[0].detach() for level in levels], boxes[0], *slopes)
    for target in range(3):
        mine = [slopes[0][target], slopes[1][target][None]]
        raw = torch.autograd.grad([regions, image], levels, mine, retain_graph=True)
        means = [mine[0] * extractor.region_mean, mine[1] * extractor.image_mean]
        away = torch.autograd.grad([regions, image], levels, means, retain_graph=True)
        for made, level, up, down in zip(found, levels, raw, away, strict=True):
            wanted = (up * level - down).sum(1)[0].detach()
            torch.testing.assert_close(made[target], wanted, rtol=1e-9, atol=1e-9)
