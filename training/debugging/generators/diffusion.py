"""Images by a diffusion model: any text-to-image pipeline of diffusers that was saved as a folder."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from saaa.errors import GeneratorFailed, OptionInvalid
from training.debugging.generators.base import Pixels
from training.debugging.generators.inversion import InversionOptions, learn_token
from training.debugging.prompts import Prompt
from training.distributed import torch_device
from training.options import check

log = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions:
    """Which pipeline draws, and how."""

    pipeline: Path
    """Folder with model_index.json and the components' weights as safetensors."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 7.5
    """Weight of the prompt against the negative prompt (classifier-free guidance); up to 1 there is no guidance, and
    prompts with negatives are refused."""
    size: int | None = None
    """Width and height in pixels, a multiple of 8; the pipeline's own unless given."""
    dtype: Dtype = "float32"
    device: str = "auto"
    """A torch device; "auto" is cuda where there is one, else cpu. Noise is always drawn on the CPU."""
    batch: int = 4
    """Images drawn at a time; alone or in a batch, an image is the same up to rounding."""
    redraws: int = 5
    """How often an image that the pipeline's safety checker blacks out is drawn anew, from another seed."""
    inversion: InversionOptions = field(default_factory=InversionOptions)
    """How tokens are learned."""

    def __post_init__(self) -> None:
        check("steps", self.steps, at_least=1)
        check("guidance", self.guidance, at_least=0)
        check("size", self.size, at_least=8)
        if self.size is not None and self.size % 8:
            raise OptionInvalid(f"size is {self.size}; it must be a multiple of 8.", field="size")
        if self.dtype not in get_args(Dtype):
            raise OptionInvalid(f"dtype is {self.dtype!r}; it must be one of {get_args(Dtype)}.", field="dtype")
        check("batch", self.batch, at_least=1)
        check("redraws", self.redraws, at_least=0)


class Diffusion:
    """A `Generator`; loads the pipeline when it is first needed.

    Raises:
        OptionInvalid: the folder holds no pipeline; when first used also: it makes no images of text, or there is no
            such device.
    """

    def __init__(self, options: DiffusionOptions) -> None:
        if not (options.pipeline / "model_index.json").is_file():
            raise OptionInvalid(
                f"{options.pipeline} holds no pipeline of diffusers: there is no model_index.json.", field="pipeline"
            )
        self._options = options
        self._tokens: dict[str, str] = {}
        """By class."""

    @cached_property
    def identity(self) -> str:
        """The digest of the pipeline's files, and what else decides what an image looks like."""
        options = self._options
        own = asdict(options)
        # Where it computes, how many at a time and how patient it is does not change an image.
        for name in ("pipeline", "device", "batch", "redraws"):
            del own[name]
        del own["inversion"]["save_every"]
        return json.dumps({"kind": "diffusion", "files": _digest(options.pipeline), **own}, sort_keys=True)

    def learn(self, images: Mapping[str, Sequence[Path]], folder: Path) -> None:
        """Learn tokens by textual inversion; `folder` gets a folder a class. See `Generator.learn`."""
        tokens = {label: token_of(label) for label in images}
        taken = set(tokens.values()) | set(self._tokens.values())
        if len(taken) < len(tokens.keys() | self._tokens.keys()):
            raise OptionInvalid(f"The classes {', '.join(sorted(tokens))} need names that differ in their letters.")
        for label, token in tokens.items():
            if label in self._tokens:
                continue
            with _failing(f"The token of {label} cannot be learned now"):
                learn_token(
                    self._pipeline,
                    token,
                    label.replace("_", " "),
                    images[label],
                    folder / label,
                    size=self._options.size or _own_size(self._pipeline),
                    model=self.identity,
                    options=self._options.inversion,
                )
            self._tokens[label] = token

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Pixels]:
        """See `Generator.draw`."""
        texts = [self._text(prompt) for prompt in prompts]
        drawn: dict[int, Pixels] = {}
        for attempt in range(self._options.redraws + 1):
            todo = [place for place in range(len(prompts)) if place not in drawn]
            if attempt and todo:
                log.warning("%d images were blacked out by the safety checker; drawn anew", len(todo))
            for start in range(0, len(todo), self._options.batch):
                places = todo[start : start + self._options.batch]
                pictures = self._draw(
                    [texts[i] for i in places],
                    [", ".join(prompts[i].negative) for i in places],
                    [_seed(seeds[i], attempt) for i in places],
                )
                drawn.update((i, picture) for i, picture in zip(places, pictures, strict=True) if picture is not None)
        missing = [texts[place] for place in range(len(prompts)) if place not in drawn]
        if missing:
            raise GeneratorFailed(
                f'The safety checker blacked out {self._options.redraws + 1} images of "{missing[0]}"; '
                "change the prompt, or allow more redraws."
            )
        return [drawn[place] for place in range(len(prompts))]

    @cached_property
    def _pipeline(self) -> Any:
        options = self._options
        device = torch_device(options.device)
        pipeline = _loaded(options.pipeline)
        with _failing("The pipeline cannot be moved to its device"):
            pipeline.to(device, getattr(torch, options.dtype))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _text(self, prompt: Prompt) -> str:
        if prompt.negative and self._options.guidance <= 1:
            raise OptionInvalid("Prompts with negatives need a guidance above 1.", field="guidance")
        if not prompt.token:
            return prompt.text
        if prompt.label not in self._tokens:
            raise OptionInvalid(f"The prompt asks for the token of {prompt.label}, which was not learned.")
        return prompt.text.replace("{token}", self._tokens[prompt.label])

    def _draw(self, texts: list[str], negatives: list[str], seeds: Sequence[int]) -> Sequence[Pixels | None]:
        """One call of the pipeline; None where the safety checker blacked an image out."""
        with _failing("The pipeline failed"):
            answer = self._pipeline(
                prompt=texts,
                negative_prompt=negatives if self._options.guidance > 1 else None,
                height=self._options.size,
                width=self._options.size,
                num_inference_steps=self._options.steps,
                guidance_scale=self._options.guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
            )
        pictures: NDArray[np.float32] = answer.images
        if not np.isfinite(pictures).all():
            raise GeneratorFailed(f'An image of "{texts[0]}" is not finite; try dtype float32 or bfloat16.')
        black = getattr(answer, "nsfw_content_detected", None) or [False] * len(texts)
        levels = np.rint(pictures * 255).astype(np.uint8)
        return [None if out else picture for picture, out in zip(levels, black, strict=True)]


def token_of(label: str) -> str:
    """The new word of a class, such as <art-studio>."""
    return "<" + re.sub(r"[\W_]+", "-", label.lower()) + ">"


def _seed(seed: int, attempt: int) -> int:
    """The seed itself, and others after it that no neighbour uses."""
    return seed if attempt == 0 else int(np.random.SeedSequence([seed, attempt]).generate_state(1, np.uint64)[0] >> 1)


def _own_size(pipeline: Any) -> int:
    """Pixels along a side of what the pipeline draws unless told otherwise."""
    return int(pipeline.unet.config.sample_size * pipeline.vae_scale_factor)


def _digest(folder: Path) -> str:
    """Of all files of a pipeline, by name and content; hidden ones are no part of it."""
    total = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    for name in sorted(name for name in names if not any(part.startswith(".") for part in name.split("/"))):
        with names[name].open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _loaded(folder: Path) -> Any:
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise OptionInvalid("Diffusion models need the package diffusers; install saaa[generate].") from error
    try:
        # Pickled weights could run anything.
        pipeline = cast(Any, DiffusionPipeline).from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=find_spec("accelerate") is not None,  # it warns of the default without that package
        )
    except Exception as error:  # damaged folders raise nearly every type
        raise GeneratorFailed(f"The pipeline in {folder} cannot be loaded: {_line(error)}") from error
    known = inspect.signature(pipeline.__call__).parameters
    lacking = {"prompt", "negative_prompt", "guidance_scale", "generator", "height"} - known.keys()
    if lacking or {"image", "mask_image"} & known.keys():
        raise OptionInvalid(f"{folder} holds a {type(pipeline).__name__}; a text-to-image pipeline is needed.")
    return pipeline


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """What torch, diffusers and the machine raise while they work, as `GeneratorFailed`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise GeneratorFailed(f"{what}: the memory does not suffice; lower batch or size.") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise GeneratorFailed(f"{what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """A library's message in one line of bearable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__
