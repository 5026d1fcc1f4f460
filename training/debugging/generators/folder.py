"""Images made elsewhere, handed out as if they were generated."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from saaa.errors import DataError, GeneratorFailed, ImageRejected
from saaa.images import decode
from training.debugging.generators.base import Pixels
from training.debugging.prompts import Prompt
from training.egdd.listing import list_folders

PROMPTS = "prompts.jsonl"


class FolderGenerator:
    """Hands out the images of a folder, each once: those of the prompt first, then what is left of the class.

    It learns no tokens: what was learned elsewhere is in the images.

    Args:
        folder: class folders; and perhaps prompts.jsonl, whose lines {"file": "kitchen/1.png", "prompt": "..."} say of
            which prompt an image is, in the words of `Prompt.text`.

    Raises:
        DataError: no images, or a line of prompts.jsonl is none or names no image.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}.")
        self._folder = folder
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        listing = list_folders(folder, classes)
        self._files: dict[str, list[str]] = defaultdict(list)
        for name, label in zip(listing.names, listing.labels, strict=True):
            self._files[classes[label]].append(name)
        self._prompts = _read_prompts(folder / PROMPTS, set(listing.names))
        digest = hashlib.sha256(json.dumps(self._prompts, sort_keys=True).encode())
        for name in listing.names:
            digest.update(f"{name} {(folder / name).stat().st_size}\n".encode())
        self.supply = digest.hexdigest()
        """By names, sizes and prompts of the images."""
        self._given: dict[tuple[Prompt, int], str] = {}

    @property
    def identity(self) -> str:
        """What is in the folder may change until a debug set is complete; see `supply`."""
        return "folder"

    def learn(self, images: Mapping[str, Sequence[Path]], folder: Path) -> None:
        """Nothing is to be learned."""

    def plan(self, wanted: Sequence[tuple[Prompt, int]]) -> None:
        """Decide which image each prompt with its seed gets.

        Raises:
            GeneratorFailed: there are too few readable images of a class.
        """
        self._given = {}
        for label in dict.fromkeys(prompt.label for prompt, _ in wanted):
            own = [ask for ask in wanted if ask[0].label == label]
            files = [name for name in self._files.get(label, ()) if self._readable(name)]
            if len(files) < len(own):
                raise GeneratorFailed(
                    f"{self._folder} has {len(files)} readable images of {label}, and {len(own)} are wanted; add "
                    "images, or lower the budget."
                )
            by_prompt: dict[str, list[str]] = defaultdict(list)
            for name in files:
                by_prompt[_same(self._prompts.get(name, ""))].append(name)
            for ask in own:
                if matching := by_prompt.get(_same(ask[0].text)):
                    self._given[ask] = matching.pop(0)
            taken = set(self._given.values())
            left = iter(sorted((n for n in files if n not in taken), key=lambda n: n in self._prompts))
            for ask in own:
                if ask not in self._given:
                    self._given[ask] = next(left)

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Pixels]:
        """Hand out images; what was not planned before is planned now, by itself.

        Raises:
            GeneratorFailed: too few images, or one cannot be read any more.
        """
        asked = list(zip(prompts, seeds, strict=True))
        if any(ask not in self._given for ask in asked):
            self.plan(asked)
        try:
            return [decode((self._folder / self._given[ask]).read_bytes()) for ask in asked]
        except (OSError, ImageRejected) as error:
            raise GeneratorFailed(f"An image of {self._folder} cannot be read any more: {error}") from error

    def _readable(self, name: str) -> bool:
        try:
            decode((self._folder / name).read_bytes())
        except (OSError, ImageRejected):
            return False
        return True


def _same(text: str) -> str:
    """Prompts that differ in case and spaces only are the same."""
    return " ".join(text.lower().split())


def _read_prompts(path: Path, names: set[str]) -> dict[str, str]:
    if not path.is_file():
        return {}
    found = {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            entry = json.loads(line)
            if not isinstance(entry, dict) or entry.get("file") not in names or not isinstance(entry["prompt"], str):
                raise DataError(f'{path}, line {number}: write {{"file": an image, "prompt": its prompt}}.')
            found[entry["file"]] = entry["prompt"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found
