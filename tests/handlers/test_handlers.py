"""The handlers, loaded by TorchServe's own model loader from an unpacked archive, as a worker does it."""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
from ts.service import Service

from handlers.base import LOAD_FAILED, RESPONSE_LIMIT_VARIABLE
from saaa import archive, images, wire
from saaa.errors import ArchiveError, BackendFailed
from saaa.fitting import Picture
from saaa.runtime.executor import Executor
from saaa.work import Execution, Work, WorkBatch, WorkItem
from serving.backends import launch
from tests.tiny_models import CLASSES, EGA_NAME, EGDD_NAME, SIZE, VERSION, make_graph, make_pixels

METRICS = Path(sys.modules["ts"].__file__ or "").parent / "configs" / "metrics.yaml"


def load(mar: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    with zipfile.ZipFile(mar) as packed:
        packed.extractall(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "handler", raising=False)
    metrics = MetricsCacheYamlImpl(config_file_path=str(METRICS))
    metrics.initialize_cache()
    loader = ModelLoaderFactory.get_model_loader()
    return loader.load("any", str(folder), "handler.py", None, 1, None, True, metrics)


@pytest.fixture(scope="module")
def services(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("unpacked")
        yield {kind: load(tiny_models / f"{kind}.mar", folder / kind, monkeypatch) for kind in ("egdd", "ega")}


def ask(service: Service, *forms: dict[str, Any]) -> tuple[list[Any], Context]:
    context = service.context
    context.request_processor = [RequestProcessor({}) for _ in forms]
    return service._entry_point(list(forms), context), context


def ask_json(service: Service, form: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    (answer,), context = ask(service, form)
    assert context.get_response_content_type(0) == "application/json"
    return context.get_response_status(0)[0] or 200, json.loads(answer)


def photo() -> bytes:
    return images.encode_png(np.ascontiguousarray(make_pixels(1)[0].repeat(2, axis=1)))


def batch_of(work: Work, count: int = 3) -> WorkBatch:
    return WorkBatch(
        model=EGA_NAME if work is Work.CAPTION else EGDD_NAME,
        version=VERSION,
        work=work,
        pixels=make_pixels(count),
        items=tuple(WorkItem(graph=make_graph(n) if work is Work.CAPTION else None) for n in range(count)),
    )


def form_of(batch: WorkBatch) -> dict[str, bytearray]:
    header, pixels = wire.pack_batch(batch)
    return {wire.HEADER_KEY: bytearray(header), wire.PIXELS_KEY: bytearray(pixels)}


@pytest.mark.parametrize("work", list(Work))
def test_a_packed_batch_gets_what_the_executor_gives(
    services: dict[str, Service], tiny_models: Path, work: Work
) -> None:
    kind = "ega" if work is Work.CAPTION else "egdd"
    batch = batch_of(work)
    (answer,), _ = ask(services[kind], form_of(batch))
    assert isinstance(answer, bytes)
    wanted = Executor.open(tiny_models / f"{kind}.mar").run(batch)
    assert repr(wire.unpack_results(answer, 3)) == repr(wanted)


def test_a_handler_describes_its_model(services: dict[str, Service], tiny_models: Path) -> None:
    for kind, service in services.items():
        (answer,), _ = ask(service, {wire.HEADER_KEY: bytearray(wire.pack_describe()), wire.PIXELS_KEY: b""})
        assert wire.unpack_description(answer) == archive.info(tiny_models / f"{kind}.mar")


def test_bytes_that_are_no_batch_get_a_refusal(services: dict[str, Service]) -> None:
    good = form_of(batch_of(Work.PREDICT))
    for form in (good | {wire.HEADER_KEY: b"\xff\xff"}, good | {wire.PIXELS_KEY: b"123"}, good | {"pixels": "text"}):
        (answer,), _ = ask(services["egdd"], form)
        with pytest.raises(BackendFailed, match="The model refused the batch"):
            wire.unpack_results(answer, 3)
    (answer,), _ = ask(services["egdd"], good)
    assert len(wire.unpack_results(answer, 3)) == 3


def test_an_answer_above_the_limit_becomes_a_refusal(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RESPONSE_LIMIT_VARIABLE, "300")
    service = load(tiny_models / "egdd.mar", tmp_path, monkeypatch)
    (answer,), _ = ask(service, form_of(batch_of(Work.EXPLAIN, 30)))
    assert len(answer) <= 300
    with pytest.raises(BackendFailed, match="at most 300 can be sent"):
        wire.unpack_results(answer, 30)
    status, body = ask_json(service, {"body": bytearray(photo())})
    assert status == 413
    assert body["error"]["reason"] == "BACKEND_FAILED"


@pytest.mark.parametrize("how", ["body", "data", "image", "json"])
def test_a_photo_over_rest_gets_predictions_and_an_attribution(services: dict[str, Service], how: str) -> None:
    file = photo()
    form = {"body": {"image": base64.b64encode(file).decode()}} if how == "json" else {how: bytearray(file)}
    status, body = ask_json(services["egdd"], form)
    assert status == 200
    assert sorted(p["label"] for p in body["predictions"]) == sorted(CLASSES)
    chances = [p["probability"] for p in body["predictions"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    (attribution,) = body["attributions"]
    assert attribution["target"] == body["predictions"][0]["label"]
    assert np.array(attribution["grid"]).ndim == 2
    assert attribution["region"] == [0, 0, 2 * SIZE, SIZE]
    assert body["model"]["name"] == EGDD_NAME


def test_a_large_jpeg_over_rest_is_decoded_as_the_archive_allows(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive.read(tiny_models / "egdd.mar")
    part = {**made.config["preprocessing"], "decode_scales": [2], "decode_margin": 1.0}
    archive.write(tmp_path / "egdd.mar", replace(made, config={**made.config, "preprocessing": part}))
    buffer = io.BytesIO()
    Image.fromarray(make_pixels(1)[0]).resize((203, 157)).save(buffer, "JPEG")
    status, body = ask_json(
        load(tmp_path / "egdd.mar", tmp_path / "unpacked", monkeypatch), {"body": buffer.getvalue()}
    )
    assert status == 200
    (attribution,) = body["attributions"]
    assert attribution["region"] == [0, 0, 203, 157]

    executor = Executor.open(tmp_path / "egdd.mar", threads=1)
    pixels = Picture(buffer.getvalue()).fit(executor.info)[0][None]
    asked = replace(batch_of(Work.EXPLAIN, 1), pixels=pixels)
    (result,) = executor.run(asked)
    assert attribution["grid"] == result.maps[0].values.tolist()
    whole = images.fit(images.decode(buffer.getvalue()), SIZE)[0][None]
    (other,) = executor.run(replace(asked, pixels=whole))
    assert attribution["grid"] != other.maps[0].values.tolist()


REGION = {
    "objects": [
        {"object_id": 1, "name": "chair", "attributes": ["red"], "x": 0, "y": 0, "w": 40, "h": 30},
        {"object_id": 2, "name": "lamp", "attributes": [], "x": 60, "y": 10, "w": 60, "h": 50},
    ],
    "relationships": [{"relationship_id": 3, "subject_id": 1, "object_id": 2, "name": "near"}],
}


def test_a_photo_and_a_graph_over_rest_get_a_caption(services: dict[str, Service]) -> None:
    as_json = {"body": {"image": base64.b64encode(photo()).decode(), "graph": REGION}}
    as_fields = {"image": bytearray(photo()), "graph": bytearray(json.dumps(REGION).encode())}
    answers = [ask_json(services["ega"], form) for form in (as_json, as_fields)]
    assert answers[0] == answers[1]
    status, body = answers[0]
    assert (status, body["graph_source"]) == (200, "GIVEN")
    (caption,) = body["captions"]
    assert sorted(caption["nodes"]) == ["chair", "lamp", "near", "red"]
    assert caption["text"] == " ".join(caption["words"])
    assert np.array(caption["node_weights"]).shape == (len(caption["words"]), 4)


def test_a_bare_photo_is_captioned_as_one_object(services: dict[str, Service]) -> None:
    status, body = ask_json(services["ega"], {"body": bytearray(photo())})
    assert (status, body["graph_source"]) == (200, "WHOLE_IMAGE")
    assert body["captions"][0]["nodes"] == ["image"]


@pytest.mark.parametrize(
    ("kind", "form", "reason"),
    [
        ("egdd", {}, "IMAGE_REJECTED"),
        ("egdd", {"body": bytearray(b"no picture")}, "IMAGE_REJECTED"),
        ("egdd", {"body": {"image": "%%%"}}, "IMAGE_REJECTED"),
        ("egdd", {"body": [1, 2]}, "IMAGE_REJECTED"),
        ("ega", {"image": bytearray(photo()), "graph": bytearray(b"{")}, "SCENE_GRAPH_ERROR"),
        ("ega", {"image": bytearray(photo()), "graph": [1]}, "SCENE_GRAPH_ERROR"),
        ("ega", {"image": bytearray(photo()), "graph": {"objects": [{"name": "x"}]}}, "SCENE_GRAPH_ERROR"),
    ],
)
def test_a_bad_rest_request_is_a_400_that_says_why(
    services: dict[str, Service], kind: str, form: dict[str, Any], reason: str
) -> None:
    status, body = ask_json(services[kind], form)
    assert status == 400
    assert body["error"]["reason"] == reason
    assert body["error"]["message"]


def test_a_worker_that_cannot_load_says_why_in_one_line(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = archive.read(tiny_models / "egdd.mar")
    archive.write(tmp_path / "bad.mar", replace(sound, config=dict(sound.config, classes=["one", "two"])))
    with pytest.raises(ArchiveError, match="usable classifier"):
        load(tmp_path / "bad.mar", tmp_path / "bad", monkeypatch)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith(LOAD_FAILED)]
    assert "does not describe a usable classifier" in line
    assert "\n" not in line
    assert launch.LOAD_FAILED == LOAD_FAILED, "the owner of TorchServe looks for this line"


def test_a_worker_that_falls_back_says_why_and_serves(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SAAA_RUNTIME", "openvino")
    service = load(tiny_models / "egdd.mar", tmp_path / "egdd", monkeypatch)
    assert "the model runs on torch: the archive holds no openvino graph" in caplog.messages
    (answer,), _ = ask(service, form_of(batch_of(Work.PREDICT)))
    assert all(result.error is None and not result.recomputed for result in wire.unpack_results(answer, 3))
    (answer,), _ = ask(service, {wire.HEADER_KEY: bytearray(wire.pack_describe()), wire.PIXELS_KEY: b""})
    told = wire.unpack_description(answer).execution
    assert told == Execution(runtime="torch", precision="fp32", refused="the archive holds no openvino graph")
