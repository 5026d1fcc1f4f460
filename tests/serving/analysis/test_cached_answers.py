"""Answers from the cache over real gRPC: what the caller, the journal and the metrics are told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc

from saaa.client import AsyncClient
from saaa.v1 import analysis_pb2 as pb
from serving.security.scopes import Scope
from serving.security.tokens import create
from serving.telemetry.journal import read_journal
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, QUICK, PixelBackend, calling, photo, refusal, thing
from tests.serving.security.secured import bearer
from tests.serving.telemetry.test_metrics import read

CACHING = replace(QUICK, cache_bytes=2**20)
PREDICT = [pb.OUTPUT_PREDICTIONS]
GRAPH = pb.SceneGraph(objects=[thing(1), thing(2)])


def said(answer: pb.AnalyzeResponse) -> pb.AnalyzeResponse:
    """What does not depend on the one request."""
    kept = pb.AnalyzeResponse()
    kept.CopyFrom(answer)
    kept.ClearField("request_id")
    kept.ClearField("timings")
    kept.provenance.cached = False
    return kept


async def test_the_same_question_gets_the_same_answer_with_its_own_id_and_timings() -> None:
    backend = PixelBackend()
    async with calling(backend, CACHING) as caller:
        first = await caller.analyze(graph=GRAPH, request_id="one")
        computed = len(backend.batches)
        again = await caller.analyze(graph=GRAPH, request_id="two", priority=pb.PRIORITY_BATCH)
        assert len(backend.batches) == computed == 2
        assert said(again) == said(first)
        assert (first.provenance.cached, again.provenance.cached) == (False, True)
        assert (first.request_id, again.request_id) == ("one", "two")
        assert [timing.stage for timing in again.timings] == ["total"]
        assert [timing.stage for timing in first.timings][-1] == "total"
        assert len(first.timings) == 4
        # An option that nobody reads changes nothing; the version by name is the version by default.
        named = pb.ModelSelector(name="colours", version="1")
        unread = pb.AttributionOptions(steps=7)
        assert (await caller.analyze(graph=GRAPH, classifier=named, attribution=unread)).provenance.cached
        for changed in (
            {"image": photo((1, 2, 3))},
            {"outputs": PREDICT},
            {"top_k": 1},
            {"graph": pb.SceneGraph(objects=[thing(1)])},
            {"attribution": pb.AttributionOptions(method="integrated_gradients")},
            {"caption": pb.CaptionOptions(count=2)},
        ):
            assert not (await caller.analyze(**{"graph": GRAPH, **changed})).provenance.cached
        async with AsyncClient(caller.facade.address, timeout=20) as client:
            analyses = [await client.analyze(photo(), outputs=["predictions"]) for _ in range(2)]
            assert [analysis.to_json()["provenance"]["cached"] for analysis in analyses] == [False, True]


async def test_without_the_option_everything_is_computed() -> None:
    backend = PixelBackend()
    async with calling(backend) as caller:
        for _ in range(2):
            assert not (await caller.analyze(outputs=PREDICT)).provenance.cached
        assert len(backend.batches) == 2


async def test_one_batch_serves_all_who_ask_at_once_and_a_failure_is_not_kept() -> None:
    backend = PixelBackend()
    backend.seconds = 0.3
    async with calling(backend, CACHING) as caller:
        backend.broken = ZeroDivisionError()
        assert (await refusal(caller.analyze(outputs=PREDICT))).code is grpc.StatusCode.INTERNAL
        backend.broken = None
        answers = await asyncio.gather(*(caller.analyze(outputs=PREDICT) for _ in range(8)))
        assert sum(answer.provenance.cached for answer in answers) == 7
        assert len({answer.request_id for answer in answers}) == 8
        assert [len(batch.items) for batch in backend.batches] == [1]


async def test_another_archive_of_the_same_version_has_its_own_answers() -> None:
    backend = PixelBackend()
    async with calling(backend, CACHING) as caller:
        await caller.analyze(outputs=PREDICT)
        backend.models = (replace(CLASSIFIER, digest="c" * 64), CAPTIONER)
        await caller.facade._probe._describe()  # type: ignore[attr-defined]
        changed = await caller.analyze(outputs=PREDICT)
        assert not changed.provenance.cached
        assert changed.provenance.classifier.archive_sha256 == "c" * 64


async def test_callers_do_not_get_each_others_answers(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    mine, yours = (bearer(create(tokens, name, [Scope.ANALYZE], days=1)[0]) for name in ("me", "you"))
    security = replace(CACHING.security, tokens=tokens)
    async with calling(PixelBackend(), CACHING, security=security) as caller:
        request = pb.AnalyzeRequest(image=photo(), outputs=PREDICT)
        cached = [
            (await caller.stub.Analyze(request, metadata=who, timeout=20)).provenance.cached
            for who in (mine, yours, mine, yours)
        ]
        assert cached == [False, False, True, True]


async def test_the_journal_and_the_metrics_tell_of_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    telemetry = TelemetrySettings(journal=path, metrics_port=0)
    async with calling(PixelBackend(), CACHING, telemetry=telemetry) as caller:
        for name in "abc":
            await caller.analyze(outputs=PREDICT, request_id=name)
        samples = await read(caller)
        assert samples.value("saaa_cache_requests_total", outcome="miss") == 1
        assert samples.value("saaa_cache_requests_total", outcome="hit") == 2
        assert samples.value("saaa_stage_seconds_count", stage="total") == 3
        assert samples.value("saaa_stage_seconds_count", stage="classify") == 1
    entries = list(read_journal(path))
    batch, *requests = entries
    assert batch["record"] == "batch"
    assert [entry["request_id"] for entry in requests] == ["a", "b", "c"]
    assert [entry["cached"] for entry in requests] == [False, True, True]
    # An answer from the cache is made again from the batch that it came from.
    assert {entry["models"][0]["batch"] for entry in requests} == {batch["id"]}
