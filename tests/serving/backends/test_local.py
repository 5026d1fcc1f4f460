"""The backend in this process."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saaa import archive
from saaa.errors import DeadlineExceeded, ModelNotFound, OptionInvalid, StartFailed
from saaa.runtime.executor import Executor
from saaa.work import ExplainOptions, Work, WorkBatch, WorkItem
from serving.backends.base import Backend
from serving.backends.local import LocalBackend
from tests.tiny_models import EGA_NAME, EGDD_NAME, VERSION, make_graph, make_pixels


def explain(count: int, **options: int) -> WorkBatch:
    return WorkBatch(
        model=EGDD_NAME,
        version=VERSION,
        work=Work.EXPLAIN,
        pixels=make_pixels(count),
        items=(WorkItem(),) * count,
        explain=ExplainOptions(method="integrated_gradients", **options),
    )


async def test_it_serves_what_is_in_the_folder(tiny_models: Path) -> None:
    said: list[str] = []
    async with LocalBackend(tiny_models, progress=said.append) as local:
        backend: Backend = local
        assert said == [f"loading {EGA_NAME} 1", f"loading {EGDD_NAME} 1"]
        infos = await backend.describe()
        assert {i.name: i.digest for i in infos} == {
            i.name: i.digest for i in map(archive.info, tiny_models.glob("*.mar"))
        }
        assert await backend.ready() == {(EGA_NAME, VERSION), (EGDD_NAME, VERSION)}
        captions = WorkBatch(
            model=EGA_NAME,
            version=VERSION,
            work=Work.CAPTION,
            pixels=make_pixels(2),
            items=(WorkItem(graph=make_graph()), WorkItem()),
        )
        explained, captioned = await asyncio.gather(
            backend.run(explain(3), timeout=60), backend.run(captions, timeout=60)
        )
        wanted = Executor.open(tiny_models / "egdd.mar").run(explain(3))
        for a, b in zip(explained, wanted, strict=True):
            np.testing.assert_allclose(a.maps[0].values, b.maps[0].values, atol=1e-6)
        assert [r.error is None for r in captioned] == [True, False]
        with pytest.raises(ModelNotFound, match="No model tiny-egdd 9 is served"):
            await backend.run(replace(explain(1), version="9"), timeout=60)


async def test_a_late_answer_is_a_deadline_and_work_not_begun_is_dropped(tiny_models: Path) -> None:
    async with LocalBackend(tiny_models) as backend:
        executor = backend._served[EGDD_NAME, VERSION].executor
        runs: list[int] = []
        run = executor.run
        executor.run = lambda batch: runs.append(len(batch.items)) or run(batch)  # type: ignore[method-assign,func-returns-value]
        first = asyncio.create_task(backend.run(explain(8, steps=64), timeout=60))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.01 s"):
            await backend.run(explain(2), timeout=0.01)
        assert len(await first) == 8
        assert len(await backend.run(explain(1), timeout=60)) == 1
        assert runs == [8, 1]


async def test_several_versions_of_a_model_are_served_apart(tiny_models: Path, tmp_path: Path) -> None:
    first = archive.read(tiny_models / "egdd.mar")
    tensors = {name: value.copy() for name, value in first.tensors.items()}
    tensors["classifier.bias"][2] += 20
    archive.write(tmp_path / "v1.mar", first)
    archive.write(tmp_path / "v2.mar", replace(first, version="2", tensors=tensors))
    async with LocalBackend(tmp_path) as backend:
        assert await backend.ready() == {(EGDD_NAME, "1"), (EGDD_NAME, "2")}
        best = []
        for version in ("1", "2"):
            batch = replace(explain(1), version=version, work=Work.PREDICT)
            (result,) = await backend.run(batch, timeout=60)
            assert result.probabilities is not None
            best.append(float(result.probabilities[2]))
        assert best[0] < 0.9 < best[1]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder, _: shutil.rmtree(folder), "does not exist"),
        (lambda folder, _: None, r"holds no \.mar archive"),
        (lambda folder, mar: [shutil.copy(mar, folder / f"{n}.mar") for n in "ab"], r"a\.mar and b\.mar in .* both"),
        (lambda folder, mar: (folder / "a.mar").write_bytes(mar.read_bytes()[:-1000]), r"a\.mar: .*cannot be read"),
        (lambda folder, mar: (folder / "a.mar").write_bytes(flip(mar.read_bytes())), r"a\.mar: .*Bad CRC"),
    ],
)
async def test_a_folder_that_cannot_be_served_is_one_clear_line(
    tiny_models: Path, tmp_path: Path, prepare: object, says: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    prepare(folder, tiny_models / "egdd.mar")  # type: ignore[operator]
    backend = LocalBackend(folder)
    try:
        with pytest.raises(StartFailed, match=says) as failed:
            await backend.start()
        assert "\n" not in failed.value.message
    finally:
        await backend.close()


def flip(data: bytes) -> bytes:
    """Damage the weights."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def test_numbers_have_ranges(tiny_models: Path) -> None:
    with pytest.raises(OptionInvalid, match="must be at least 1"):
        LocalBackend(tiny_models, threads=0)
