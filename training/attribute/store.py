"""The output folder of a run: batches finished one by one, put together at the end.

While it works, every process leaves one file a finished batch in parts/, written aside and renamed into place, so a
process killed at any moment loses at most its batch. Batches are numbered over the whole data set and dealt out in
turn, so what they hold does not depend on how many processes there are or how often the run was stopped. Whoever finds
all parts there puts them together under a lock:

    maps-00000-of-00002.h5   one a process: <number of the item>/<number of the map>, float32 (rows, columns)
    index.jsonl, index.csv   one line an item, one line a map or an item's error
    run.json                 what was asked for, of which model and data; "complete" once everything is there
    .lock, .working-<rank>   locks of running processes; as files they mean nothing
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from saaa.errors import DataError, OptionInvalid
from training.attribute.explain import Answer, Grid, plain

RUN, INDEX, TABLE, PARTS, LOCK = "run.json", "index.jsonl", "index.csv", "parts", ".lock"
GALLERY, GALLERY_PICTURES = "gallery.html", "gallery"
JOB = "attribute"
MOST_RANKS = 99_999
FIGURES = ("mass", "density", "score", "effect", "weight", "gap_mass", "weaker_mass")
"""Of each node in a map: those of `saaa.concepts.ConceptScore`, and its weight for a word of a caption."""
_ITEMS, _RECORDS, _SECONDS = "items", "records", "seconds"
_NODE = np.dtype(
    [("kind", h5py.string_dtype()), ("id", "i8"), ("attribute_index", "i4"), ("name", h5py.string_dtype())]
)


@dataclass(frozen=True)
class Rank:
    """This process among those that share a run, as torchrun says it."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Read RANK and WORLD_SIZE; absent, the process is alone.

        Raises:
            OptionInvalid: they are no rank.
        """
        texts = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not all(text.isdecimal() for text in texts) or not int(texts[0]) < int(texts[1]) <= MOST_RANKS:
            raise OptionInvalid(f"RANK={texts[0]}, WORLD_SIZE={texts[1]} name no process; unset them or use torchrun.")
        return cls(int(texts[0]), int(texts[1]))

    def share(self, batches: int) -> range:
        """The batches of this process."""
        return range(self.rank, batches, self.world)

    @property
    def shard(self) -> str:
        """The file of its maps."""
        return f"maps-{self.rank:05d}-of-{self.world:05d}.h5"


class Store:
    """The output folder of one run.

    Args:
        folder: made when absent; else empty, or of the same run.
        identity: what makes the run this one and no other; JSON values.
        rank: this process.
        overwrite: delete another run that is there.

    Raises:
        DataError: the folder holds something else, or cannot be written.
        OptionInvalid: the folder holds a run with another identity; or `overwrite` with several processes, where one
            would delete what another has just made.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], rank: Rank, *, overwrite: bool = False) -> None:
        if overwrite and rank.world > 1:
            raise OptionInvalid(
                f"overwrite works in a single process only; delete {folder} yourself first.", field="overwrite"
            )
        self.folder, self.rank = folder, rank
        self._identity = json.loads(json.dumps(identity))
        with _writing(folder):
            if folder.is_dir() and any(folder.iterdir()) and not any((folder / n).exists() for n in (LOCK, RUN)):
                raise DataError(f"{folder} holds something else; give an empty or new folder with --out.")
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = (folder / f".working-{rank.rank}").open("w")
            try:
                fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with self.locked():
                    self._begin(overwrite)
            except BlockingIOError:
                self.close()
                raise DataError(f"Another process is at work on {folder}; wait for it or stop it.") from None
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let another process be this rank."""
        self._claim.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, overwrite: bool) -> None:
        run = self.folder / RUN
        if run.exists():
            known = self.run()
            if known["identity"] != self._identity and not overwrite:
                raise OptionInvalid(
                    f"{self.folder} holds a run with {_difference(known['identity'], self._identity)}. Give the same "
                    "options to go on with it, another --out, or --overwrite.",
                    field="out",
                )
            if overwrite:
                run.unlink()  # first: without it there is nothing to go on with
                self._clear()
        elif strangers := sorted(p.name for p in self.folder.iterdir() if p.name[0] != "." and p.name != PARTS):
            raise DataError(f"{self.folder} holds {strangers[0]} and no {RUN}; give an empty or new folder with --out.")
        if not run.exists():
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)
            write_whole(run, json.dumps({"job": JOB, "complete": False, "identity": self._identity}, indent=1) + "\n")
        if self.complete():
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)  # killed while it cleared up
        else:
            (self.folder / PARTS).mkdir(exist_ok=True)

    def _clear(self) -> None:
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        shutil.rmtree(self.folder / GALLERY_PICTURES, ignore_errors=True)
        for name in (INDEX, TABLE, GALLERY):
            (self.folder / name).unlink(missing_ok=True)
        self._clear_shards()

    def _clear_shards(self) -> None:
        for shard in self.folder.glob("maps-*-of-*.h5"):
            shard.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; it falls with the process, however that ends."""
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def run(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            DataError: it is not ours.
        """
        try:
            found = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
            if found["job"] == JOB and isinstance(found["identity"], dict):
                return dict(found)
        except (ValueError, KeyError, TypeError):
            pass
        raise DataError(f"{self.folder / RUN} is not of an attribution run; give another --out.")

    def complete(self) -> bool:
        """Whether everything is there."""
        return bool(self.run()["complete"])

    def done(self) -> set[int]:
        """The batches that are finished."""
        return {int(path.stem) for path in (self.folder / PARTS).glob("[0-9]*.h5")}

    def add(self, batch: int, first: int, answers: Sequence[Answer], seconds: float) -> None:
        """Keep a finished batch; `first` is the number of its first item."""
        with _writing(self.folder):
            target = self._part(batch)
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            with h5py.File(aside, "w") as part:
                part.attrs[_SECONDS] = seconds
                items = part.create_group(_ITEMS)
                records = [_write(items, first + k, answer) for k, answer in enumerate(answers)]
                part[_RECORDS] = json.dumps(records)
            _sync(aside)
            aside.replace(target)

    def finish(self, batches: int, report: Mapping[str, Any], draw: Callable[[], None]) -> bool:
        """Put the parts together if all are there; say whether the run is complete now.

        Args:
            batches: how many there are.
            report: goes into run.json, with the counts and seconds.
            draw: called once index and maps are there.
        """
        with _writing(self.folder), self.locked():
            if self.complete():
                return True
            if not set(range(batches)) <= self.done():
                return False
            self._clear_shards()  # of an attempt with another number of processes
            for rank in range(self.rank.world):
                self._make_shard(Rank(rank, self.rank.world), batches)
            counts = self._make_index(batches)
            draw()
            head = {"job": JOB, "complete": True, "identity": self._identity}
            write_whole(self.folder / RUN, json.dumps({**head, **report, **counts}, indent=1) + "\n")
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)
            return True

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of the index."""
        with (self.folder / INDEX).open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def _part(self, batch: int) -> Path:
        return self.folder / PARTS / f"{batch:08d}.h5"

    def _make_shard(self, rank: Rank, batches: int) -> None:
        target = self.folder / rank.shard
        aside = target.with_name(f".{target.name}")
        with h5py.File(aside, "w") as shard:
            for batch in rank.share(batches):
                with self._open(batch) as part:
                    for name in part[_ITEMS]:
                        part.copy(f"{_ITEMS}/{name}", shard, name)
        _sync(aside)
        aside.replace(target)

    def _make_index(self, batches: int) -> dict[str, Any]:
        from training.attribute.table import Table

        counts = {"items": 0, "failed": 0, "maps": 0}
        seconds = 0.0
        asides = {name: self.folder / f".{name}" for name in (INDEX, TABLE)}
        with (
            asides[INDEX].open("w", encoding="utf-8") as lines,
            asides[TABLE].open("w", encoding="utf-8", newline="") as rows,
        ):
            table = Table(rows)
            for batch in range(batches):
                shard = Rank(batch % self.rank.world, self.rank.world).shard
                with self._open(batch) as part:
                    seconds += float(part.attrs[_SECONDS])
                    records = json.loads(part[_RECORDS][()])
                for record in records:
                    if record["maps"]:
                        record["shard"] = shard
                    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                    table.add(record)
                    counts["items"] += 1
                    counts["failed"] += record["error"] is not None
                    counts["maps"] += len(record["maps"])
        for name, aside in asides.items():
            aside.replace(self.folder / name)
        return {"processes": self.rank.world, "counts": counts, "seconds": round(seconds, 3)}

    def _open(self, batch: int) -> h5py.File:
        try:
            return h5py.File(self._part(batch), "r")
        except OSError as error:
            raise DataError(f"{self._part(batch)} is damaged; delete it and start the job again.") from error


def _write(items: h5py.Group, number: int, answer: Answer) -> dict[str, Any]:
    """Write one item's maps; returns its line of the index, which lacks only the shard."""
    name = f"{number:08d}"
    record = {"item": number, **answer.record, "shard": None, "maps": []}
    if answer.grids:
        group = items.create_group(name)
        for key in ("file", "region"):
            if (value := answer.record[key]) is not None:
                group.attrs[key] = value
        for key, value in answer.record["covered"].items():
            group.attrs[f"covered_{key}"] = value
        if nodes := [score.node for score in answer.grids[0].concepts]:
            rows = [(node.kind.name.lower(), node.id, node.attribute_index, node.name) for node in nodes]
            group["nodes"] = np.array(rows, _NODE)
    for k, grid in enumerate(answer.grids):
        made = group.create_dataset(str(k), data=grid.values)
        concepts = [_concept(grid, i) for i in range(len(grid.concepts))]
        figures = {
            key: np.array([concept.get(key, np.nan) for concept in concepts], np.float32)
            for key in FIGURES
            if any(key in concept for concept in concepts)
        }
        for key, value in {"file": answer.record["file"], **grid.facts, **figures}.items():
            if value is not None:
                made.attrs[key] = value
        rows, columns = grid.values.shape
        listed = {"concepts": concepts} if concepts else {}
        record["maps"].append({"data": f"{name}/{k}", "rows": rows, "columns": columns, **grid.facts, **listed})
    return record


def _concept(grid: Grid, place: int) -> dict[str, Any]:
    """What the index says of one node of a map's graph; figures that it does not have are left out."""
    score = grid.concepts[place]
    figures: dict[str, float | None] = {key: getattr(score, key, None) for key in FIGURES}
    if grid.weights is not None and place < len(grid.weights):
        figures["weight"] = grid.weights[place]
    definitions = {"score_definition": score.score_definition.value}
    if score.effect is not None:
        definitions["effect_definition"] = score.effect_definition
    node = score.node
    return {
        **{"kind": node.kind.name.lower(), "id": node.id, "attribute_index": node.attribute_index, "name": node.name},
        **{key: plain(value) for key, value in figures.items() if value is not None},
        **definitions,
    }


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    """A file renamed into place must not be empty after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In words, what another run has otherwise; digests are shortened."""
    names = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
    return ", ".join(f"{n} {str(known.get(n))[:40]} (now {str(wanted.get(n))[:40]})" for n in names)
