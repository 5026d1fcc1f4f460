"""Textual inversion in a tiny untrained pipeline."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from saaa.errors import DataError, GeneratorFailed, OptionInvalid, TrainingDiverged
from saaa.images import decode
from tests.training.debugging.generators.tiny_pipeline import SIZE, save_tiny_pipeline
from training.debugging.debug_set import DebugSet
from training.debugging.generators import inversion
from training.debugging.generators.diffusion import Diffusion, DiffusionOptions
from training.debugging.generators.inversion import InversionOptions, learn_token
from training.debugging.prompts import Prompt
from training.debugging.strategies import Materials, StrategyOptions, make_debug_set

QUICK = InversionOptions(steps=6, batch=2, save_every=2)
TOKEN = "<art-studio>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("inversion") / "pipeline")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def pipeline(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)


def _learn(pipeline: Any, images: list[Path], out: Path, options: InversionOptions = QUICK, model: str = "m") -> None:
    learn_token(pipeline, TOKEN, "art studio", images, out, size=SIZE, model=model, options=options)


def _weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name in ("unet", "vae", "text_encoder")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


def _losses(out: Path) -> list[float]:
    rows = list(csv.DictReader(io.StringIO((out / "loss.csv").read_text())))
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [float(row["loss"]) for row in rows]


def test_nothing_changes_but_the_new_row(pipeline: Any, images: list[Path], tmp_path: Path) -> None:
    before = _weights(pipeline)
    words = pipeline.tokenizer("art studio", add_special_tokens=False).input_ids
    _learn(pipeline, images, tmp_path)
    after = _weights(pipeline)
    [table] = [name for name in before if name.endswith("token_embedding.weight")]
    row = pipeline.tokenizer.convert_tokens_to_ids(TOKEN)
    assert after[table].shape[0] == before[table].shape[0] + 1 == row + 1
    for name, value in before.items():
        assert torch.equal(after[name][: len(value)] if value.ndim else after[name], value), name
    learned = after[table][row]
    start = before[table][words].mean(0)
    # Six steps of Adam move each number by at most six times the rate, and by about that when they agree.
    moved = (learned - start).abs()
    assert QUICK.learning_rate < moved.mean() < 6.5 * QUICK.learning_rate
    assert load_file(tmp_path / "learned_embeds.safetensors")[TOKEN].equal(learned)
    assert {path.name for path in tmp_path.iterdir()} == {"learned_embeds.safetensors", "loss.csv"}
    assert not any(hook for module in pipeline.text_encoder.modules() for hook in module._forward_hooks)


def test_diffusers_reads_the_token(pipeline: Any, folder: Path, images: list[Path], tmp_path: Path) -> None:
    _learn(pipeline, images, tmp_path)
    other = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    other.load_textual_inversion(str(tmp_path))
    for each in (pipeline, other):
        each.set_progress_bar_config(disable=True)
    first, second = (
        each(f"a photo of {TOKEN}", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
        for each in (pipeline, other)
    )
    np.testing.assert_array_equal(first.images, second.images)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_papers(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A picture that is its own mirror image and a VAE that is sure of its latents z: what stands beside z in
    z_t = sqrt(a) z + sqrt(1 - a) eps is the noise that was drawn."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type=kind)
    pipeline.vae.quant_conv.weight.data[4:] = 0
    pipeline.vae.quant_conv.bias.data[4:] = -30
    half = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE // 2, 3), np.uint8)
    picture = np.concatenate([half, half[:, ::-1]], 1)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    scaled = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    latents = pipeline.vae.encode(scaled).latent_dist.mean.detach() * pipeline.vae.config.scaling_factor

    seen: list[tuple[torch.Tensor, ...]] = []
    forward = pipeline.unet.forward

    def watch(noisy: torch.Tensor, times: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Any:
        answer = forward(noisy, times, encoder_hidden_states=encoder_hidden_states)
        seen.append((noisy, times, answer.sample.detach()))
        return answer

    monkeypatch.setattr(pipeline.unet, "forward", watch)
    _learn(pipeline, [tmp_path / "picture.png"], tmp_path / "out", InversionOptions(steps=20, batch=8))
    noises = []
    for (noisy, times, predicted), loss in zip(seen, _losses(tmp_path / "out"), strict=True):
        kept = pipeline.scheduler.alphas_cumprod[times].reshape(-1, 1, 1, 1)
        noise = (noisy - kept.sqrt() * latents) / (1 - kept).sqrt()
        wanted = noise if kind == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * latents
        assert float((predicted - wanted).square().mean()) == pytest.approx(loss, rel=1e-3)
        noises.append(noise)
    noise = torch.stack(noises)
    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    times = torch.cat([times for _, times, _ in seen])
    assert times.min() < 100 < 900 < times.max()


def test_a_memorised_image_is_denoised_better(pipeline: Any, images: list[Path], tmp_path: Path) -> None:
    # An untrained network hardly hears the text; louder, it does.
    for name, weight in pipeline.unet.named_parameters():
        if "attn2.to_out" in name:
            weight.data *= 30
    options = InversionOptions(steps=30, batch=4, learning_rate=0.01)
    moments = inversion._moments(pipeline, images[:1], SIZE)
    words = pipeline.tokenizer("art studio", add_special_tokens=False).input_ids
    start = pipeline.text_encoder.get_input_embeddings().weight[words].mean(0).detach()
    _learn(pipeline, images[:1], tmp_path, options)

    @torch.no_grad()
    def losses(vector: torch.Tensor) -> np.ndarray[Any, Any]:
        """With noise that learning did not see, the same for each vector."""
        inversion._put(pipeline, TOKEN, vector)
        process = inversion._noise_process(pipeline)
        steps = range(1000, 1020)
        return np.array([float(inversion._loss(pipeline, process, moments, TOKEN, options, step)) for step in steps])

    learned = load_file(tmp_path / "learned_embeds.safetensors")[TOKEN]
    gains = losses(start) - losses(learned)
    assert gains.mean() > 5 * gains.std() / np.sqrt(len(gains))


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    folder: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> Any:
        return StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)

    _learn(fresh(), images, tmp_path / "whole")
    pipeline = fresh()
    forward, calls = pipeline.unet.forward, [0]

    def stop(*values: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return forward(*values, **named)

    monkeypatch.setattr(pipeline.unet, "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        _learn(pipeline, images, tmp_path / "halves")
    assert (tmp_path / "halves" / "state.safetensors").is_file()
    assert not (tmp_path / "halves" / "learned_embeds.safetensors").exists()

    steps: Iterator[int] = iter(range(100))
    pipeline = fresh()
    forward_again = pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda *v, **n: (next(steps), forward_again(*v, **n))[1])
    _learn(pipeline, images, tmp_path / "halves")
    assert next(steps) == 2  # four of the six steps were kept
    for name in ("learned_embeds.safetensors", "loss.csv"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # In the same process too, where the pipeline knows the token already.
    (tmp_path / "halves" / "learned_embeds.safetensors").unlink()
    _learn(pipeline, images, tmp_path / "halves")
    assert (tmp_path / "halves" / "loss.csv").read_bytes() == (tmp_path / "whole" / "loss.csv").read_bytes()


def test_what_is_there_is_not_learned_again(folder: Path, images: list[Path], tmp_path: Path) -> None:
    options = DiffusionOptions(pipeline=folder, steps=2, device="cpu", inversion=QUICK)
    generator = Diffusion(options)
    prompts = [Prompt(label=label, text="a photo of a {token}") for label in ("museum", "art_studio")]
    generator.learn({"museum": images[:2], "art_studio": images[2:]}, tmp_path)
    drawn = generator.draw(prompts, [5, 5])
    assert (drawn[0] != drawn[1]).any()
    [named] = generator.draw([Prompt(label="museum", text="a photo of a museum")], [5])
    assert (named != drawn[0]).any()

    again = Diffusion(options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again.learn({"museum": images[:2], "art_studio": images[2:]}, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    np.testing.assert_array_equal(again.draw(prompts, [5, 5]), drawn)


def test_a_folder_of_other_tokens_is_not_taken(pipeline: Any, images: list[Path], tmp_path: Path) -> None:
    _learn(pipeline, images, tmp_path)
    for given, options, model in (
        (images[:2], QUICK, "m"),
        (images, InversionOptions(steps=7, batch=2), "m"),
        (images, QUICK, "another"),
    ):
        with pytest.raises(OptionInvalid, match="another folder"):
            _learn(pipeline, given, tmp_path, options, model)
    (tmp_path / "learned_embeds.safetensors").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot be read"):
        _learn(pipeline, images, tmp_path)


def test_images_that_cannot_be_read_are_left_out(
    pipeline: Any, images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(images[0].read_bytes()[:50])
    _learn(pipeline, [bad, images[0]], tmp_path / "one")
    assert "bad.png" in caplog.text
    with pytest.raises(DataError, match="None of the images"):
        _learn(pipeline, [bad], tmp_path / "none")


def test_a_loss_that_is_not_finite_stops(
    pipeline: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weight in pipeline.unet.conv_out.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 0"):
        _learn(pipeline, images, tmp_path)


def test_failures_of_the_machine_are_told(
    folder: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Diffusion(DiffusionOptions(pipeline=folder, device="cpu", inversion=QUICK))
    with pytest.raises(GeneratorFailed, match="museum"):
        generator.learn({"museum": [tmp_path / "gone.png"]}, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("allocated much")

    with monkeypatch.context() as patch:
        patch.setattr(generator._pipeline.unet, "forward", fail)
        with pytest.raises(GeneratorFailed, match="memory"):
            generator.learn({"museum": images}, tmp_path)
    generator.learn({"museum": images}, tmp_path)


def test_pipelines_that_learn_no_tokens_are_told(
    pipeline: Any, folder: Path, images: list[Path], tmp_path: Path
) -> None:
    pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(OptionInvalid, match="sample"):
        _learn(pipeline, images, tmp_path)
    pipeline.text_encoder_2 = pipeline.text_encoder
    with pytest.raises(OptionInvalid, match="one text encoder"):
        _learn(pipeline, images, tmp_path)
    pipeline.vae = None
    with pytest.raises(OptionInvalid, match="no vae"):
        _learn(pipeline, images, tmp_path)
    half = Diffusion(DiffusionOptions(pipeline=folder, dtype="float16", device="cpu", inversion=QUICK))
    with pytest.raises(OptionInvalid, match="float32 or bfloat16"):
        half.learn({"museum": images}, tmp_path)


def test_bfloat16_learns_too(folder: Path, images: list[Path], tmp_path: Path) -> None:
    generator = Diffusion(DiffusionOptions(pipeline=folder, steps=2, dtype="bfloat16", device="cpu", inversion=QUICK))
    generator.learn({"museum": images}, tmp_path)
    assert load_file(tmp_path / "museum" / "learned_embeds.safetensors")["<museum>"].dtype == torch.float32
    assert np.isfinite(_losses(tmp_path / "museum")).all()
    generator.draw([Prompt(label="museum", text="a {token}")], [0])


def test_classes_that_share_a_token_are_refused(folder: Path, images: list[Path], tmp_path: Path) -> None:
    generator = Diffusion(DiffusionOptions(pipeline=folder, device="cpu", inversion=QUICK))
    with pytest.raises(OptionInvalid, match="names"):
        generator.learn({"art_studio": images, "Art studio": images}, tmp_path)


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"learning_rate": 0}, {"seed": -1}, {"save_every": 0}])
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid, match=next(iter(options))):
        InversionOptions(**options)


def test_a_debug_set_goes_on_after_a_failure(
    folder: Path, images: list[Path], tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tmp_path / "train"
    for label, path in zip(("attic", "den"), images, strict=False):
        (train / label).mkdir(parents=True)
        shutil.copy(path, train / label)

    def make(out: str, generator: Diffusion) -> DebugSet:
        materials = Materials(
            model=tiny_models / "egdd.mar", classes=("attic", "den"), train=train, generator=generator
        )
        return make_debug_set("g-tg", materials, StrategyOptions(budget=6), tmp_path / out)

    def fresh() -> Diffusion:
        return Diffusion(DiffusionOptions(pipeline=folder, steps=2, device="cpu", inversion=QUICK))

    whole = make("whole", fresh())
    assert whole.counts == {"attic": 6, "den": 6}
    assert len({item.digest for item in whole.items}) == 12

    generator = fresh()
    drawn = iter(range(2))  # calls of four images each
    forward = generator._pipeline.vae.decode

    def fail(*given: Any, **named: Any) -> Any:
        if next(drawn, None) is None:
            raise torch.OutOfMemoryError("no memory is left")
        return forward(*given, **named)

    monkeypatch.setattr(generator._pipeline.vae, "decode", fail)
    with pytest.raises(GeneratorFailed, match="memory"):
        make("halves", generator)
    kept = sorted((tmp_path / "halves" / "images").rglob("*.jpg"))
    assert len(kept) == 8
    before = [path.stat().st_mtime_ns for path in kept]
    halves = make("halves", fresh())
    assert [path.stat().st_mtime_ns for path in kept] == before
    # The batches are others than in one go, so that sums may round otherwise; a level is lost in JPEG.
    for one, other in zip(whole.items, halves.items, strict=True):
        first, second = (
            decode((made.images / item.file).read_bytes()) for made, item in ((whole, one), (halves, other))
        )
        assert abs(first.astype(int) - second).mean() < 1
