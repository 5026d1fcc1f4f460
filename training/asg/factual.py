"""How good the phrase parser is: precision and recall against hand-made graphs of captions.

A file holds one phrase a line, CSV with the columns "caption" and "scene_graph"; a graph is text such as
"( cup , on , table ) , ( table , is , wooden ) , ( spoon )". So does FACTUAL publish Visual Genome's region phrases
(Li et al., "FACTUAL: A Benchmark for Faithful and Consistent Textual Scene Graph Parsing", ACL Findings 2023).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import DataError
from training.asg.config import EvaluateAsgConfig
from training.asg.lemmas import singular, verb_base
from training.asg.lexicon import NUMBERS
from training.asg.phrases import Phrase, parse
from training.files import write_json

_GROUP = re.compile(r"\(([^()]*)\)")
KINDS = ("objects", "attributes", "relationships", "pairs")
"""What is counted; "pairs" are relationships whatever their words, all that the captioner sees of them."""


@dataclass(frozen=True)
class Statements:
    """What a graph says of one phrase, in base forms."""

    objects: frozenset[str]
    attributes: frozenset[tuple[str, str]]
    """(object, attribute)"""
    relationships: frozenset[tuple[str, str, str]]
    """(subject, words, object)"""

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """(subject, object)"""
        return frozenset((subject, thing) for subject, _, thing in self.relationships)


def _word(text: str) -> str:
    """A name as it is compared: singular, lower case."""
    return singular(text.strip().lower())


def _attribute(text: str) -> str:
    text = text.strip().lower()
    return NUMBERS.get(text, text)


def _relation(text: str) -> str:
    first, _, rest = text.strip().lower().partition(" ")
    base = verb_base(first) or first
    return f"{'lay' if base == 'lie' else base} {rest}".strip()  # captions do not tell the two apart


def read_graph(text: str) -> Statements:
    """A graph in FACTUAL's notation.

    Raises:
        ValueError: a group of brackets does not hold one or three parts.
    """
    objects: set[str] = set()
    attributes: set[tuple[str, str]] = set()
    relationships: set[tuple[str, str, str]] = set()
    for group in _GROUP.findall(text):
        parts = re.split(r"\s,\s", f" {group.strip()} ")
        if len(parts) not in (1, 3):
            raise ValueError(f"({group}) has {len(parts)} parts, not 1 or 3")
        objects.add(_word(parts[0]))
        if len(parts) == 3 and parts[1].strip() == "is":
            attributes.add((_word(parts[0]), _attribute(parts[2])))
        elif len(parts) == 3:
            objects.add(_word(parts[2]))
            relationships.add((_word(parts[0]), _relation(parts[1]), _word(parts[2])))
    return Statements(frozenset(objects), frozenset(attributes), frozenset(relationships))


def statements(phrase: Phrase) -> Statements:
    """What the parser found, in the same form."""
    names = [_word(mention.name) for mention in phrase.mentions]
    return Statements(
        frozenset(names),
        frozenset(
            (name, _attribute(attribute))
            for name, mention in zip(names, phrase.mentions, strict=True)
            for attribute in mention.attributes
        ),
        frozenset((names[link.subject], _relation(link.base), names[link.object]) for link in phrase.links),
    )


def measure(rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Precision, recall and F1 of the parser, over all statements of all phrases.

    Args:
        rows: (caption, graph in FACTUAL's notation).

    Returns:
        {kind: {"precision", "recall", "f1", "found", "wanted"}} for `KINDS` and "all" (objects, attributes and
        relationships together), and "phrases", how many there were. A share of nothing is 1.
    """
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    phrases = 0
    for caption, graph in rows:
        ours, theirs = statements(parse(caption)), read_graph(graph)
        phrases += 1
        for kind in KINDS:
            one, two = getattr(ours, kind), getattr(theirs, kind)
            right[kind] += len(one & two)
            found[kind] += len(one)
            wanted[kind] += len(two)
    for counts in (right, found, wanted):
        counts["all"] = sum(counts[kind] for kind in KINDS if kind != "pairs")
    return {"phrases": phrases, **{k: _shares(right[k], found[k], wanted[k]) for k in (*KINDS, "all")}}


def _shares(right: int, found: int, wanted: int) -> dict[str, float]:
    precision, recall = right / found if found else 1.0, right / wanted if wanted else 1.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "found": found, "wanted": wanted}


def read_rows(path: Path) -> list[tuple[str, str]]:
    """The phrases of a file.

    Raises:
        DataError: the file is missing, has not these columns, or a graph cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["caption"], row["scene_graph"]) for row in csv.DictReader(file)]
    except KeyError as error:
        raise DataError(f"{path} has no column {error}; it needs caption and scene_graph.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    for number, (caption, graph) in enumerate(rows, 2):
        try:
            if not caption or not graph:
                raise ValueError("it is empty")
            read_graph(graph)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
    if not rows:
        raise DataError(f"{path} holds no phrase.")
    return rows


def table(report: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [f"phrase parser on {report['phrases']} phrases    precision  recall     F1"]
    for kind in (*KINDS, "all"):
        f = report[kind]
        lines.append(f"  {kind:<34} {f['precision']:8.3f} {f['recall']:8.3f} {f['f1']:7.3f}")
    return "\n".join(lines)


def evaluate(config: EvaluateAsgConfig) -> dict[str, Any]:
    """Measure the parser on a file; prints a table, writes the JSON if asked, and gives the figures.

    Raises:
        DataError: the file cannot be used, or the JSON not be written.
    """
    report = measure(read_rows(config.phrases))
    print(table(report))
    if config.output is not None:
        write_json(config.output, report)
    return report
