"""Answers of real models, made again from the journal: alone, in their batch, and where something is another."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saaa import archive, wire
from saaa.errors import ArchiveError, DataError
from saaa.fitting import Picture
from saaa.v1 import analysis_pb2 as pb
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.commands.audit import audit
from serving.commands.cli import main
from serving.settings import FacadeSettings, LaneSettings
from serving.telemetry.journal import pixels_digest
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import calling, link, thing

LANE = LaneSettings(max_batch=8, max_batch_s=1000)
GRAPH = pb.SceneGraph(
    objects=[thing(1, (2, 3, 30, 20), "red"), thing(2, (20, 10, 40, 30))], relationships=[link(1, 1, 2)]
)


@dataclass
class Record:
    """A journal with one answer computed alone ("alone") and three that shared their batches ("0", "1", "2")."""

    folder: Path
    models: Path

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def image(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def batch_sizes(self) -> set[int]:
        entries = map(json.loads, self.journal.read_text().splitlines())
        return {len(entry["pixels_sha256"]) for entry in entries if entry["record"] == "batch"}


async def write(record: Record, backend: Any) -> None:
    drawn = np.random.default_rng(0)
    for name in ("alone", "0", "1", "2"):
        pixels = drawn.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        Image.fromarray(pixels).save(record.image(name))
    settings = FacadeSettings(
        port=0, predict=LANE, explain=LANE, caption=LANE, telemetry=TelemetrySettings(journal=record.journal)
    )
    async with calling(backend, settings) as caller:

        async def ask(name: str, image: str = "") -> None:
            await caller.analyze(record.image(image or name).read_bytes(), 120, request_id=name, graph=GRAPH)

        await ask("alone")
        # While one call keeps the lanes busy, the others gather.
        await asyncio.gather(ask("0"), ask("1"), ask("2"), ask("busy", "alone"), ask("busy", "alone"))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Record:
    """By the local backend."""
    record = Record(tmp_path_factory.mktemp("audit"), tiny_models)

    async def work() -> None:
        async with LocalBackend(tiny_models) as backend:
            await write(record, backend)

    asyncio.run(work())
    assert max(record.batch_sizes()) > 1
    return record


def test_an_answer_that_was_computed_alone_comes_out_bit_for_bit(local: Record) -> None:
    findings = audit("alone", local.journal, local.models, [local.image("alone")])
    assert [finding.work for finding in findings] == ["explain", "caption"]
    assert all(finding.exact and finding.identical and finding.within for finding in findings)


def test_a_batch_comes_out_bit_for_bit_where_all_its_images_are_given_else_within_the_tolerance(local: Record) -> None:
    everything = [local.image(name) for name in ("alone", "0", "1", "2")]
    for name in ("0", "1", "2"):
        whole = audit(name, local.journal, local.models, everything)
        assert all(finding.exact and finding.identical and not finding.reasons for finding in whole)
        part = audit(name, local.journal, local.models, [local.image(name)])
        assert all(finding.reproduced for finding in part), [str(finding) for finding in part]


def test_an_answer_to_a_jpeg_at_a_reduced_scale(tmp_path: Path, tiny_models: Path) -> None:
    """The archive says the scale, so image and archive are enough; one that says another has another digest."""
    made = archive.read(tiny_models / "egdd.mar")
    part = {**made.config["preprocessing"], "decode_scales": [2], "decode_margin": 1.0}
    reduced = replace(made, config={**made.config, "preprocessing": part})
    (tmp_path / "models").mkdir()
    archive.write(tmp_path / "models" / "egdd.mar", reduced)
    image = tmp_path / "large.jpg"
    Image.effect_noise((200, 170), 60).convert("RGB").save(image)
    settings = FacadeSettings(port=0, telemetry=TelemetrySettings(journal=tmp_path / "journal"))

    async def work() -> None:
        async with LocalBackend(tmp_path / "models") as backend, calling(backend, settings) as caller:
            await caller.analyze(image.read_bytes(), 120, request_id="large")

    asyncio.run(work())
    (finding,) = audit("large", tmp_path / "journal", tmp_path / "models", [image])
    assert finding.exact
    assert finding.identical
    entries = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    (digests,) = [entry["pixels_sha256"] for entry in entries if entry["record"] == "batch"]
    seen = [Picture(image.read_bytes()).fit(archived.info())[0] for archived in (reduced, made)]
    assert [pixels_digest(pixels) == digests[0] for pixels in seen] == [True, False]


def test_torchserves_answers_too(torchserve: TorchServeProcess, tmp_path: Path, tiny_models: Path) -> None:
    record = Record(tmp_path, tiny_models)

    async def work() -> None:
        await write(record, TorchServeBackend(torchserve.inference_address, torchserve.management_address))

    asyncio.run(work())
    everything = [record.image(name) for name in ("alone", "0", "1", "2")]
    for name in ("alone", "2"):
        findings = audit(name, record.journal, tiny_models, everything)
        assert len(findings) == 2
        assert all(finding.exact and finding.identical for finding in findings), [str(finding) for finding in findings]


def test_the_wrong_image_is_told(local: Record) -> None:
    with pytest.raises(DataError, match="Wrong image: request 'alone' was about"):
        audit("alone", local.journal, local.models, [local.image("0")])
    with pytest.raises(DataError, match="knows no answered request 'other'"):
        audit("other", local.journal, local.models, [local.image("0")])


def test_the_wrong_archive_is_told(local: Record, tmp_path: Path) -> None:
    changed = archive.read(local.models / "egdd.mar")
    archive.write(tmp_path / "egdd.mar", replace(changed, card={"changed": True}))
    with pytest.raises(ArchiveError, match=r"Wrong archive: .*no archive of tiny-egdd 1.*egdd.mar is tiny-egdd 1 with"):
        audit("alone", local.journal, tmp_path, [local.image("alone")])


def rewritten(local: Record, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    entries = [json.loads(line) for line in local.journal.read_text().splitlines()]
    for entry in entries:
        change(entry)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_another_answer_is_not_the_same(local: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(entry: dict[str, Any]) -> None:
        if entry["record"] == "batch":
            results = wire.unpack_results(base64.b64decode(entry["results"]), len(entry["pixels_sha256"]))
            results = [
                result if result.probabilities is None else replace(result, probabilities=result.probabilities[::-1])
                for result in results
            ]
            entry["results"] = base64.b64encode(wire.pack_results(results)).decode()

    def run(journal: Path) -> tuple[int, str]:
        image = str(local.image("alone"))
        code = main(["audit", "alone", "--journal", str(journal), "--models", str(local.models), "--image", image])
        return code, capsys.readouterr().out

    code, told = run(rewritten(local, tmp_path / "journal", change))
    assert code == 1
    assert "tiny-egdd 1, explain: NOT the same beyond the tolerance (probabilities by" in told
    assert "tiny-ega 1, caption: the same, bit for bit" in told
    code, told = run(local.journal)
    assert code == 0
    assert "tiny-egdd 1, explain: the same, bit for bit" in told


def test_a_forged_image_is_told(local: Record, tmp_path: Path) -> None:
    """A request that claims another image than its batch was computed from."""
    digest = hashlib.sha256(local.image("0").read_bytes()).hexdigest()

    def change(entry: dict[str, Any]) -> None:
        if entry.get("request_id") == "alone":
            entry["image_sha256"] = digest

    journal = rewritten(local, tmp_path / "journal", change)
    with pytest.raises(DataError, match="decodes to other pixels"):
        audit("alone", journal, local.models, [local.image("0")])


def test_another_runtime_allows_other_bits_and_says_so(local: Record, tmp_path: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        for model in entry.get("models", ()):
            model["runtime"] = "torch 1.0, threads 2"

    journal = rewritten(local, tmp_path / "journal", change)
    findings = audit("alone", journal, local.models, [local.image("alone")])
    for finding in findings:
        assert finding.reproduced
        assert not finding.exact
        assert "the answer was made by torch 1.0, threads 2" in finding.reasons[0]


@pytest.mark.parametrize("damage", [{"results": "AAAA"}, {"header": "!"}, {"pixels_sha256": []}, {"models": [{}]}])
def test_a_damaged_line_is_told(local: Record, tmp_path: Path, damage: dict[str, Any]) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry.update({name: value for name, value in damage.items() if name in entry})

    journal = rewritten(local, tmp_path / "journal", change)
    with pytest.raises(DataError, match="damaged"):
        audit("alone", journal, local.models, [local.image("alone")])
