"""Concepts that a language model finds typical of a class: those of the strategy g-llm-prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saaa.annotations.content import clean
from saaa.errors import DataError, GeneratorFailed
from training.debugging.concepts_config import ConceptsConfig
from training.debugging.llm import Llm, Transcript
from training.egdd.listing import read_classes
from training.files import write_json
from training.progress import progress

MAX_WORDS = 4
MAX_LETTERS = 40
_SHOWN = 200
_READ = 20_000
"""Characters of an answer that are looked at."""
_ECHOED = 2000
"""Characters of a useless answer that the model is shown again."""


def run(config: ConceptsConfig) -> dict[str, Any]:
    """List concepts of classes and write out/llm_concepts.json, {class: [concept, ...]}.

    Every answer is kept in out/transcript.jsonl: the same command goes on where it stopped, and with another `count` or
    model asks anew.

    Returns:
        Under "classes", "concepts" and "answers" the numbers of each; under "file" where the lists are.

    Raises:
        OptionInvalid: see `training.debugging.llm.Llm`.
        GeneratorFailed: see `list_concepts`.
        DataError: no class names, or a file that cannot be read or written.
    """
    transcript = Transcript(config.out / "transcript.jsonl")
    concepts = list_concepts(
        read_classes(config.classes),
        Llm(config.llm(), transcript),
        count=config.count,
        attempts=config.attempts,
        constrain=config.constrain,
    )
    file = config.out / "llm_concepts.json"
    write_json(file, dict(concepts))
    print(
        f"{len(concepts)} classes of {config.count} concepts each: {file}; {len(transcript)} answers in the transcript"
    )
    number = sum(map(len, concepts.values()))
    return {"classes": len(concepts), "concepts": number, "answers": len(transcript), "file": str(file)}


def list_concepts(
    classes: Sequence[str], llm: Llm, *, count: int = 10, attempts: int = 3, constrain: bool = True
) -> dict[str, tuple[str, ...]]:
    """Ask a language model for concepts of each class.

    Args:
        classes: as the class folders are named; underscores are spaces to the model.
        llm: answers from its transcript what it can.
        count: how many of a class, all different.
        attempts: how often a class is asked for; after an answer of no use the model is told why.
        constrain: have the endpoint hold the model to the answer's JSON schema.

    Returns:
        Of each class its concepts as `read_phrase` gives them, in the model's order.

    Raises:
        OptionInvalid, DataError: see `Llm.ask`.
        GeneratorFailed: no answer came, or none of use after all attempts; the message names the class.
    """
    with progress(classes, "concepts", unit="class") as names:
        return {name: _ask(name, llm, count, attempts, constrain) for name in names}


def read_concepts(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read llm_concepts.json, which people may have edited or written.

    Returns:
        The concepts of each of `classes`; other classes in the file are left out.

    Raises:
        DataError: no such file, or one that lacks a class or holds something else than short phrases, each once.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no mapping of classes to concepts")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The concepts in {path} cannot be read: {clean(str(error))[:_SHOWN]}") from error
    missing = sorted(set(classes) - set(content))
    if missing:
        raise DataError(f"{path} lists no concepts of {', '.join(missing)}; `saaa-train concepts` makes such lists.")
    try:
        return {name: _check(name, content[name], None) for name in classes}
    except ValueError as error:
        raise DataError(f"{path} is of no use: {error}") from error


def read_phrase(text: str) -> str:
    """Read a concept: an object, part or attribute in a few words.

    Returns:
        It in lower case, without an article before it and punctuation around it.

    Raises:
        ValueError: it is empty, longer than `MAX_WORDS` words or `MAX_LETTERS` letters, or has other signs than
            letters, digits, hyphens and apostrophes.
    """
    phrase = clean(text[:1000].replace("_", " ")).lower().strip(" .,;:!*\"'`")
    phrase = re.sub(r"^(an?|the|some)\s+", "", phrase)
    if len(phrase) > MAX_LETTERS or len(phrase.split()) > MAX_WORDS or not re.fullmatch(r"\w(?:[\w' -]*\w)?", phrase):
        raise ValueError(f"{clean(text[:1000])[:60]!r} is no phrase of at most {MAX_WORDS} plain words")
    return phrase


def _ask(name: str, llm: Llm, count: int, attempts: int, constrain: bool) -> tuple[str, ...]:
    schema = _schema(count) if constrain else None
    messages = [{"role": "user", "content": _question(name, count)}]
    for _ in range(attempts):
        answer = llm.ask(messages, schema)
        try:
            return _check(name, first_json(answer), count)
        except ValueError as error:
            reason = str(error)
        messages += [
            {"role": "assistant", "content": clean(answer[:_ECHOED]) or "{}"},
            {"role": "user", "content": f"That is of no use: {reason}. Answer again, with the JSON only."},
        ]
    raise GeneratorFailed(
        f"The language model gave no list of {count} concepts of the class {name!r} in {attempts} answers. The last is "
        f"of no use because {reason}: {clean(answer[:1000])[:_SHOWN]!r}. All are kept in the transcript; raise "
        "attempts to ask on, or take a more capable model."
    )


def _question(name: str, count: int) -> str:
    return (
        f'What is typical of photos of the class "{_words(name)}"? List exactly {count} different things that can be '
        "seen in them: objects, parts of objects or attributes. Name each in the singular, without an article, in at "
        f'most {MAX_WORDS} words. Answer with JSON only, in this form: {{"concepts": ["...", "..."]}}'
    )


def _schema(count: int) -> dict[str, Any]:
    """What an answer must be, in the part of JSON schema that strict endpoints take."""
    return {
        "type": "object",
        "properties": {
            "concepts": {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
        },
        "required": ["concepts"],
        "additionalProperties": False,
    }


def first_json(text: str) -> Any:
    """Give the first JSON object or list in a text; small models wrap theirs in prose and code fences.

    Raises:
        ValueError: there is none.
    """
    decoder = json.JSONDecoder()
    text = text[:_READ]
    for match in re.finditer(r"[\[{]", text):
        try:
            return decoder.raw_decode(text, match.start())[0]
        except ValueError:
            continue
        except RecursionError:
            break
    raise ValueError("there is no complete JSON in it")


def _check(name: str, content: Any, count: int | None) -> tuple[str, ...]:
    """Check a class's concepts, {"concepts": [...]} or the list alone; a ValueError says in words what is wrong."""
    listed = content.get("concepts") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ValueError('it is not of the form {"concepts": ["...", "..."]}')
    concepts = tuple(map(read_phrase, listed))
    if len(concepts) != count if count else not concepts:
        raise ValueError(f"it lists {len(concepts)} concepts of {name!r} in place of {count or 'one or more'}")
    twice = sorted({concept for concept in concepts if concepts.count(concept) > 1})
    if twice:
        raise ValueError(f"it lists {', '.join(map(repr, twice[:3]))} more than once")
    if _words(name).lower() in concepts:
        raise ValueError(f"it lists the class {_words(name)!r} itself")
    return concepts


def _words(name: str) -> str:
    return clean(name.replace("_", " "))
