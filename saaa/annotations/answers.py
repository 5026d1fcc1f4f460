"""From exports to ratings: every record read by its tool's reader, then all answers understood together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saaa.annotations.ratings import Answer, AnswerRejected, Problem, Rating, Rationale, understand
from saaa.annotations.readers import READERS, Found, Reader, record_id
from saaa.annotations.records import MAX_BYTES, Record, read_records


@dataclass(frozen=True)
class Answers:
    """What an import gives."""

    ratings: tuple[Rating, ...]
    rationales: tuple[Rationale, ...]
    problems: tuple[Problem, ...]
    records: int
    """Read in all."""


def read_answers(paths: Iterable[Path], max_bytes: int = MAX_BYTES, readers: Sequence[Reader] = READERS) -> Answers:
    """Read exports, of one tool or several.

    A record that cannot count is set aside, never silently: `problems` says of each what is wrong, or what was
    repaired. A record that is there twice counts once; another one under an id that is taken gets an id of its own.

    Raises:
        DataError: a file cannot be read, is too large, or is empty.
    """
    found: list[tuple[str, int, Answer]] = []
    rationales: list[Rationale] = []
    problems: list[Problem] = []
    taken: dict[str, list[str]] = {}
    records = 0
    for path in paths:
        for record in read_records(path, max_bytes):
            records += 1
            for answer in _answers(record, readers):
                where: dict[str, Any] = {"source": path.name, "record": record.number}
                if isinstance(answer, AnswerRejected):
                    problems.append(
                        Problem(**where, id=record_id(record.content or {}), kept=False, reason=str(answer))
                    )
                    continue
                known = taken.setdefault(answer.id, [])
                if repr(answer) in known:
                    problems.append(Problem(**where, id=answer.id, kept=False, reason="the same record came before"))
                    continue
                known.append(repr(answer))
                if len(known) > 1:
                    new = f"{answer.id}#{len(known)}"
                    problems.append(Problem(**where, id=answer.id, kept=True, reason=f"its id is taken; now {new}"))
                    answer = replace(answer, id=new)
                if isinstance(answer, Rationale):
                    rationales.append(answer)
                else:
                    found.append((path.name, record.number, answer))
    ratings = []
    for (source, number, answer), (rating, reasons) in zip(found, understand([a for *_, a in found]), strict=True):
        kept = rating is not None
        problems += [Problem(source=source, record=number, id=answer.id, kept=kept, reason=r) for r in reasons]
        if rating is not None:
            ratings.append(rating)
    order = sorted(problems, key=lambda p: (p.source, p.record))
    return Answers(tuple(ratings), tuple(rationales), tuple(order), records)


def _answers(record: Record, readers: Iterable[Reader]) -> Iterator[Found]:
    if record.content is None:
        yield AnswerRejected(record.fault)
        return
    for reader in readers:
        if reader.recognises(record.content):
            try:
                yield from reader.answers(record.content)
            except AnswerRejected as error:
                yield error
            return
    yield AnswerRejected("it is of no known tool: neither Scale, nor Label Studio, nor the facade's store")
