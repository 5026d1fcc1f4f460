"""Images by diffusers' own pipeline, tiny and untrained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from saaa.errors import GeneratorFailed, OptionInvalid
from tests.training.debugging.generators.tiny_pipeline import SIZE, save_tiny_pipeline
from training.debugging.generators.diffusion import Diffusion, DiffusionOptions, token_of
from training.debugging.generators.inversion import InversionOptions
from training.debugging.prompts import Prompt

MUSEUM = Prompt(label="museum", text="a photo of a museum")
LAMP = Prompt(label="museum", text="a museum with a lamp", negative=("art", "no studio"), concept="lamp")
OTHER = {"steps": 3, "guidance": 2, "size": 8, "dtype": "bfloat16", "inversion": InversionOptions(steps=1)}
"""Options that make other images."""
CLIP_INPUT = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("diffusion") / "pipeline")


@pytest.fixture(scope="module")
def generator(folder: Path) -> Diffusion:
    return Diffusion(DiffusionOptions(pipeline=folder, steps=4, device="cpu"))


def test_draws_what_it_was_asked_for(generator: Diffusion) -> None:
    [museum, lamp] = generator.draw([MUSEUM, LAMP], [1, 1])
    assert museum.shape == lamp.shape == (SIZE, SIZE, 3)
    assert museum.dtype == np.uint8
    assert museum.std() > 5
    # The text encoder is untrained but no constant: other words draw otherwise from the same noise.
    assert (museum != lamp).any()


def test_seeds_reproduce_alone_and_in_any_batch(folder: Path, generator: Diffusion) -> None:
    prompts, seeds = [MUSEUM, LAMP, MUSEUM, LAMP, MUSEUM], [7, 8, 9, 2**63 - 1, 0]
    together = generator.draw(prompts, seeds)
    pairs = Diffusion(DiffusionOptions(pipeline=folder, steps=4, batch=2, device="cpu")).draw(prompts, seeds)
    for prompt, seed, one, other in zip(prompts, seeds, together, pairs, strict=True):
        [alone] = generator.draw([prompt], [seed])
        # Batched sums may round otherwise.
        assert abs(alone.astype(int) - one).max() <= 1
        assert abs(alone.astype(int) - other).max() <= 1
    assert (together[0] != together[2]).mean() > 0.5


def test_negatives_and_guidance_reach_the_pipeline(folder: Path, generator: Diffusion) -> None:
    without = Prompt(label="museum", text=LAMP.text)
    [kept_out], [allowed] = generator.draw([LAMP], [3]), generator.draw([without], [3])
    assert (kept_out != allowed).any()
    pipeline = generator._pipeline
    expected = pipeline(
        prompt=LAMP.text,
        negative_prompt="art, no studio",
        num_inference_steps=4,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    assert abs(kept_out - expected * 255).max() <= 1

    unguided = Diffusion(DiffusionOptions(pipeline=folder, steps=4, guidance=1, device="cpu"))
    assert (unguided.draw([without], [3])[0] != allowed).any()
    with pytest.raises(OptionInvalid, match="guidance above 1"):
        unguided.draw([LAMP], [3])


def test_the_size_is_the_one_wanted(folder: Path) -> None:
    [picture] = Diffusion(DiffusionOptions(pipeline=folder, steps=1, size=24, device="cpu")).draw([MUSEUM], [0])
    assert picture.shape == (24, 24, 3)


def test_the_identity_is_that_of_the_images(folder: Path, tmp_path: Path) -> None:
    def identity(pipeline: Path = folder, **options: Any) -> str:
        return Diffusion(DiffusionOptions(pipeline=pipeline, **options)).identity

    assert identity(batch=1, device="cpu", redraws=0) == identity(
        batch=8, device="cuda", inversion=InversionOptions(save_every=1)
    )
    assert len({identity(**{name: value}) for name, value in OTHER.items()} | {identity()}) == 1 + len(OTHER)
    moved = save_tiny_pipeline(tmp_path / "moved")
    assert identity(moved) == identity()
    weights = moved / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert identity(moved) != identity()


def _censored(generator: Diffusion, monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Let the safety checker refuse the first image of so many calls; gives each call's number of images."""
    pipeline = generator._pipeline
    sizes: list[int] = []

    def checker(images: torch.Tensor, clip_input: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        bad = torch.zeros(len(clip_input), dtype=torch.bool)
        bad[0] = len(sizes) < calls
        sizes.append(len(images))
        return images * ~bad[:, None, None, None], bad.tolist()

    monkeypatch.setattr(pipeline, "safety_checker", checker)
    monkeypatch.setattr(pipeline, "feature_extractor", CLIP_INPUT)
    return sizes


def test_a_blacked_out_image_is_drawn_anew(
    generator: Diffusion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = generator.draw([MUSEUM, MUSEUM], [1, 2])
    calls = _censored(generator, monkeypatch, calls=2)
    again, same = generator.draw([MUSEUM, MUSEUM], [1, 2])
    assert calls == [2, 1, 1]
    assert abs(same.astype(int) - second).max() <= 1
    assert again.std() > 5
    assert (again != first).any()
    assert (again != second).any()
    assert "safety checker" in caplog.text

    calls = _censored(generator, monkeypatch, calls=2)
    reproduced, _ = generator.draw([MUSEUM, MUSEUM], [1, 2])
    assert abs(reproduced.astype(int) - again).max() <= 1


def test_diffusers_own_safety_checker_is_heard(tmp_path: Path, generator: Diffusion) -> None:
    config = CLIPConfig(
        vision_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(config)

    def censored(name: str, threshold: float) -> Diffusion:
        """Images more like its concepts than the threshold, a cosine, are refused."""
        checker.concept_embeds_weights.data.fill_(threshold)
        checker.special_care_embeds_weights.data.fill_(2)
        folder = save_tiny_pipeline(tmp_path / name, safety_checker=checker, feature_extractor=CLIP_INPUT)
        return Diffusion(DiffusionOptions(pipeline=folder, steps=4, redraws=2, device="cpu"))

    [expected] = generator.draw([MUSEUM], [1])
    [passed] = censored("lax", 2).draw([MUSEUM], [1])
    np.testing.assert_array_equal(passed, expected)
    with pytest.raises(GeneratorFailed, match='blacked out 3 images of "a photo of a museum"'):
        censored("strict", -2).draw([MUSEUM], [1])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of memory, much"), MemoryError(), RuntimeError("a\nb")])
def test_a_failure_while_drawing_is_told(
    generator: Diffusion, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(generator._pipeline.unet, "forward", fail)
    with pytest.raises(GeneratorFailed, match="memory" if not str(error).startswith("a") else "a b"):
        generator.draw([MUSEUM], [1])


def test_images_that_are_not_finite_are_told(generator: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(images=np.full((1, SIZE, SIZE, 3), np.nan, np.float32), nsfw_content_detected=None)
    monkeypatch.setitem(generator.__dict__, "_pipeline", lambda **_: nothing)
    with pytest.raises(GeneratorFailed, match="not finite"):
        generator.draw([MUSEUM], [1])


def test_folders_that_hold_no_pipeline_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"model_index\.json"):
        Diffusion(DiffusionOptions(pipeline=tmp_path / "none"))
    broken = save_tiny_pipeline(tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(GeneratorFailed, match="cannot be loaded"):
        Diffusion(DiffusionOptions(pipeline=broken)).draw([MUSEUM], [1])
    pickled = save_tiny_pipeline(tmp_path / "pickled")
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(GeneratorFailed, match="cannot be loaded"):
        Diffusion(DiffusionOptions(pipeline=pickled)).draw([MUSEUM], [1])


def test_pipelines_for_other_ends_are_told(folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline

    parts = StableDiffusionPipeline.from_pretrained(folder).components
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "inpaint")
    with pytest.raises(OptionInvalid, match="text-to-image"):
        Diffusion(DiffusionOptions(pipeline=tmp_path / "inpaint")).draw([MUSEUM], [1])


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"guidance": -1},
        {"size": 20},
        {"size": 0},
        {"batch": 0},
        {"redraws": -1},
        {"dtype": "float8"},
    ],
)
def test_options_outside_their_range_are_refused(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid, match=next(iter(options))):
        DiffusionOptions(pipeline=folder, **options)


def test_devices_that_do_not_exist_are_told(folder: Path) -> None:
    with pytest.raises(OptionInvalid, match="device"):
        Diffusion(DiffusionOptions(pipeline=folder, device="abacus")).draw([MUSEUM], [1])
    if not torch.cuda.is_available():
        with pytest.raises(OptionInvalid, match="device"):
            Diffusion(DiffusionOptions(pipeline=folder, device="cuda")).draw([MUSEUM], [1])


def test_a_token_is_a_word_of_its_own() -> None:
    assert token_of("art_studio") == "<art-studio>"
    assert token_of("Living room") == "<living-room>"
    assert token_of("博物館") == "<博物館>"


def test_tokens_must_be_learned_first(generator: Diffusion) -> None:
    with pytest.raises(OptionInvalid, match="token of museum"):
        generator.draw([Prompt(label="museum", text="a photo of a {token}")], [1])
