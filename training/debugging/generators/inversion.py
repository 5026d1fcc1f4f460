"""Textual inversion: a new word for a class, learned from its images (Gal et al., arXiv 2208.01618).

Everything but the word's embedding v is frozen; v* = argmin_v E ||eps - eps_theta(z_t, t, c(y(v)))||^2 (eq. 2 there),
over the images' latents z, times t, noise eps and neutral prompts y that hold the word.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from saaa.errors import DataError, ImageRejected, OptionInvalid, TrainingDiverged
from saaa.images import decode, fit
from training.files import whole
from training.options import check
from training.progress import progress

log = logging.getLogger(__name__)

TEMPLATES = (
    "a photo of a {}",
    "a photo of the {}",
    "a good photo of a {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a cropped photo of a {}",
    "a rendition of a {}",
)
"""Neutral prompts, as the paper takes them from CLIP's."""

EMBEDDING, STATE, LOSSES = "learned_embeds.safetensors", "state.safetensors", "loss.csv"
"""The files of a token: its embedding, under diffusers' own name; what an interrupted run goes on from; each step's
loss."""


@dataclass(frozen=True, kw_only=True)
class InversionOptions:
    """How a token is learned: Adam without decay at a constant rate."""

    steps: int = 3000
    """As diffusers' example does; the paper takes 5000."""
    batch: int = 4
    learning_rate: float = 2e-3
    """As diffusers' example does: 5e-4 an image of the batch."""
    seed: int = 0
    save_every: int = 100
    """Steps after which an interrupted run goes on; does not change the token."""

    def __post_init__(self) -> None:
        check("steps", self.steps, at_least=1)
        check("batch", self.batch, at_least=1)
        check("learning_rate", self.learning_rate, above=0)
        check("seed", self.seed, at_least=0)
        check("save_every", self.save_every, at_least=1)


def learn_token(
    pipeline: Any,
    token: str,
    words: str,
    images: Sequence[Path],
    folder: Path,
    *,
    size: int,
    model: str,
    options: InversionOptions,
) -> None:
    """Add a token to a pipeline: the one that `folder` keeps, or one learned now and kept there.

    Of the pipeline, the tokenizer grows by the token and the text encoder's table of embeddings by its row; all else
    stays as it was. Every step's randomness is a function of seed and step, so that a run that was stopped ends
    as if it had not been.

    Args:
        pipeline: one of Stable Diffusion's kind.
        token: the new word; must not be one of the tokenizer's.
        words: the class in words; the embedding starts as the mean of theirs (the paper: a single coarse word).
        images: pictures of the class, of any size.
        folder: gets learned_embeds.safetensors, {token: (width,) float32}, as `load_textual_inversion` reads it, and
            loss.csv, the loss of each step.
        size: width and height that images are brought to, their centre cut out; pixels.
        model: what the pipeline is; a token of another one is not taken.
        options: how.

    Raises:
        OptionInvalid: no tokens can be learned in this pipeline, or the folder holds one of other images or options.
        DataError: no image can be read, or a file cannot be written.
        TrainingDiverged: the loss is not finite.
    """
    process = _noise_process(pipeline)
    identity = _identity(token, words, images, size, model, options)
    kept = _read(folder / EMBEDDING, identity)
    if kept is not None:
        _put(pipeline, token, kept[token])
        return
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False).eval()
    moments = _moments(pipeline, images, size)
    own = pipeline.tokenizer(words, add_special_tokens=False).input_ids
    start = pipeline.text_encoder.get_input_embeddings().weight[own].float().mean(0)
    table, row = _put(pipeline, token, start)
    vector = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([vector], lr=options.learning_rate)
    losses = _resume(folder / STATE, identity, vector, optimizer)
    with _embedding(table, row, vector):
        steps = range(len(losses), options.steps)
        bar = progress(steps, f"learning {token}", unit="step")
        for step in bar:
            loss = _loss(pipeline, process, moments, token, options, step)
            if not bool(torch.isfinite(loss)):
                raise TrainingDiverged(
                    f"The loss of {token} is no longer finite at step {step}; lower the learning rate, or use float32."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimizer.step()
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            if (step + 1) % options.save_every == 0:
                _save_state(folder / STATE, identity, vector, optimizer, losses)
    learned = vector.detach()
    _put(pipeline, token, learned)
    with whole(folder / LOSSES) as aside:
        aside.write_text("step,loss\n" + "".join(f"{i},{loss:.9g}\n" for i, loss in enumerate(losses)), "utf-8")
    _save(folder / EMBEDDING, {token: learned.cpu()}, identity)
    (folder / STATE).unlink(missing_ok=True)


def _noise_process(pipeline: Any) -> Any:
    """The forward process of the pipeline's training, whatever sampler it draws with."""
    from diffusers import DDPMScheduler

    for part in ("unet", "vae", "tokenizer", "text_encoder", "scheduler"):
        if getattr(pipeline, part, None) is None:
            raise OptionInvalid(f"Tokens cannot be learned in a {type(pipeline).__name__}: it has no {part}.")
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise OptionInvalid("Tokens can be learned in a pipeline with one text encoder only; this one has two.")
    if pipeline.unet.dtype == torch.float16:
        raise OptionInvalid("Tokens are learned in float32 or bfloat16; float16 loses small gradients.", field="dtype")
    kind = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction") or "num_train_timesteps" not in pipeline.scheduler.config:
        raise OptionInvalid(f"Tokens are learned where the network predicts noise or velocity; this one: {kind}.")
    return cast(Any, DDPMScheduler).from_config(pipeline.scheduler.config)


def _identity(token: str, words: str, images: Sequence[Path], size: int, model: str, options: InversionOptions) -> str:
    chosen = asdict(options)
    del chosen["save_every"]
    told = [token, words, [hashlib.sha256(path.read_bytes()).hexdigest() for path in images], size, model, chosen]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def _put(pipeline: Any, token: str, vector: Tensor) -> tuple[nn.Embedding, int]:
    """Give a token, new to the pipeline or not, its embedding; return the table of embeddings and the token's row."""
    if token not in pipeline.tokenizer.get_vocab():
        pipeline.load_textual_inversion({token: vector})
    table: nn.Embedding = pipeline.text_encoder.get_input_embeddings()
    row: int = pipeline.tokenizer.convert_tokens_to_ids(token)
    table.weight[row] = vector.to(table.weight)
    return table, row


@torch.no_grad()
def _moments(pipeline: Any, images: Sequence[Path], size: int) -> Tensor:
    """Mean and log variance of each picture's latents, upright and mirrored: (n, 2, 2 x channels, h, w), on the CPU."""
    encoded = []
    for path in progress(images, "encoding", unit="image"):
        try:
            picture, _ = fit(decode(path.read_bytes()), size, mode="crop")
        except ImageRejected as error:
            log.warning("%s teaches no token: %s", path, error.message)
            continue
        pixels = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
        both = torch.stack([pixels, pixels.flip(-1)]).to(pipeline.device, pipeline.vae.dtype)
        encoded.append(pipeline.vae.encode(both).latent_dist.parameters.float().cpu())
    if not encoded:
        raise DataError("None of the images to learn a token from can be read.")
    return torch.stack(encoded)


def _loss(pipeline: Any, process: Any, moments: Tensor, token: str, options: InversionOptions, step: int) -> Tensor:
    """The squared error of the predicted noise on a batch that seed and step choose."""
    random = torch.Generator().manual_seed(
        int(np.random.SeedSequence([options.seed, step]).generate_state(1, np.uint64)[0] >> 1)
    )

    def whole_numbers(below: int) -> Tensor:
        return torch.randint(below, (options.batch,), generator=random)

    mean, log_variance = moments[whole_numbers(len(moments)), whole_numbers(2)].chunk(2, 1)
    deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))
    latents = (mean + deviation * torch.randn(mean.shape, generator=random)) * pipeline.vae.config.scaling_factor
    noise = torch.randn(mean.shape, generator=random)
    times = whole_numbers(process.config.num_train_timesteps)
    wanted = (noise if process.config.prediction_type == "epsilon" else process.get_velocity(latents, noise, times)).to(
        pipeline.device
    )
    noisy = process.add_noise(latents, noise, times).to(pipeline.device, pipeline.unet.dtype)
    texts = [TEMPLATES[int(place)].format(token) for place in whole_numbers(len(TEMPLATES))]
    said, _ = pipeline.encode_prompt(texts, pipeline.device, 1, False)
    predicted = pipeline.unet(noisy, times.to(pipeline.device), encoder_hidden_states=said).sample
    return F.mse_loss(predicted.float(), wanted)


@contextmanager
def _embedding(table: nn.Module, row: int, vector: Tensor) -> Iterator[None]:
    """Let a table of embeddings give `vector` for one row, so that gradients reach nothing else."""

    def replace(_: nn.Module, ids: tuple[Tensor, ...], given: Tensor) -> Tensor:
        return torch.where((ids[0] == row)[..., None], vector.to(given.dtype), given)

    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _resume(path: Path, identity: str, vector: nn.Parameter, optimizer: torch.optim.Optimizer) -> list[float]:
    """Take up an interrupted run, and give the losses of its steps."""
    kept = _read(path, identity)
    if kept is None:
        return []
    with torch.no_grad():
        vector.copy_(kept["embedding"])
    losses: list[float] = kept["losses"].tolist()
    moments = {name: kept[name] for name in ("exp_avg", "exp_avg_sq")}
    state = {"step": torch.tensor(float(len(losses))), **moments}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: state}})
    return losses


def _save_state(
    path: Path, identity: str, vector: Tensor, optimizer: torch.optim.Optimizer, losses: Sequence[float]
) -> None:
    state = optimizer.state[vector]
    kept = {"embedding": vector.detach(), "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
    kept = {name: value.cpu() for name, value in kept.items()}
    _save(path, {**kept, "losses": torch.tensor(losses, dtype=torch.float64)}, identity)


def _save(path: Path, tensors: dict[str, Tensor], identity: str) -> None:
    with whole(path) as aside:
        save_file(tensors, aside, metadata={"identity": identity})


def _read(path: Path, identity: str) -> dict[str, Tensor] | None:
    """What a file of a token holds; None where there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("identity")
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it to learn the token again.") from error
    if found != identity:
        raise OptionInvalid(
            f"{path.parent} holds a token of other images, options or another model; choose another folder."
        )
    return tensors
