"""What a debug set is made of, opened: people's concepts and the generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saaa.annotations.content import clean
from saaa.difficulty import Concept
from saaa.errors import DataError, OptionInvalid
from saaa.images import decode
from training.debugging.config import DebugTrainConfig
from training.egdd.data import list_images
from training.options import read_values, typed_values
from training.scenes.records import SCENES

if TYPE_CHECKING:
    from training.debugging.generators.base import Generator


def read_concepts(path: Path, classes: tuple[str, ...], least_share: float) -> dict[str, tuple[Concept, ...]]:
    """Read concepts.json of `saaa-train annotate import`.

    Args:
        path: the file.
        classes: the model's; what it says of other words is told and left out.
        least_share: concepts below this share of their class's ratings are left out.

    Returns:
        Of every class its concepts, maybe none.

    Raises:
        DataError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        said = {clean(word): [Concept.from_json(concept) for concept in listed] for word, listed in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no concepts of `saaa-train annotate import`: {error}") from error
    names = {clean(name): name for name in classes}
    if strangers := sorted(said.keys() - names.keys()):
        print(f"Answers about {len(strangers)} words that are no class are left out, such as {strangers[0]!r}.")
    found: dict[str, tuple[Concept, ...]] = dict.fromkeys(classes, ())
    for word in said.keys() & names.keys():
        least = least_share * sum(concept.support for concept in said[word])
        found[names[word]] = tuple(concept for concept in said[word] if concept.support >= least)
    return found


def open_generator(config: DebugTrainConfig) -> Generator:
    """Open the generator that is asked for; the world's own where data is a world and none is named.

    Raises:
        OptionInvalid: none is named and data is no world, its options are wrong, or what it needs is not there.
        DataError: its folder or world cannot be read.
    """
    kind = config.generator or ("world" if (config.data / SCENES).is_file() else None)
    if kind is None:
        raise OptionInvalid(f"{config.strategy} needs a generator; give --generator.", field="generator")
    if kind == "diffusers":
        return _diffusion(config)
    if config.generator_options is not None:
        raise OptionInvalid(f"The generator {kind} has no options; leave them out.", field="generator_options")
    if kind == "folder":
        from training.debugging.generators.folder import FolderGenerator

        return FolderGenerator(_path(config))
    from training.debugging.generators.world import WorldGenerator

    listing = list_images(config.data / "train")
    return WorldGenerator(size=decode(listing.read(0)).shape[1])


def _diffusion(config: DebugTrainConfig) -> Generator:
    from training.debugging.generators.diffusion import Diffusion, DiffusionOptions
    from training.debugging.generators.inversion import InversionOptions

    given: dict[str, Any] = {}
    path = config.generator_options
    if path is not None:
        given = dict(read_values(path))
        inversion = given.pop("inversion", None) or {}
        if not isinstance(inversion, dict) or "pipeline" in given:
            raise OptionInvalid(
                f"{path}: write options under inversion:, and name the pipeline by --generator_path.",
                field="generator_options",
            )
        given = dict(typed_values(given, DiffusionOptions, str(path)))
        given["inversion"] = InversionOptions(**typed_values(inversion, InversionOptions, f"{path}: inversion"))
    return Diffusion(DiffusionOptions(pipeline=_path(config), **given))


def _path(config: DebugTrainConfig) -> Path:
    assert config.generator_path is not None, "the configuration demands it"
    return config.generator_path
