"""Prometheus metrics of one facade: its calls, its lanes, its batches, its models.

Names of calls are those of the gRPC ecosystem (`grpc_server_*`), so that its dashboards and alerts work; the facade's
own begin with `saaa_`. No label holds anything that a caller can choose: methods are the served ones, models those of
the catalog, at most `MAX_MODELS` of them, and classes theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import saaa
from saaa.errors import SaaaError
from saaa.work import ItemResult, ModelInfo, ModelKind, TargetKind, Work
from serving.interceptors.base import Call
from serving.lanes.lanes import BatchKey
from serving.models.catalog import Catalog
from serving.observer import CacheUse, Flight, Loss, Observer
from serving.requests import AnalysisRequest, AnalysisResult

MAX_MODELS = 100
"""Most versions of models told apart in the life of a process; further ones are counted together as "other"."""
MAX_CLASSES = 2000
"""Most classes of all versions of models told apart; further ones are counted together as "other"."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histograms of times, in seconds."""
RELEVANCES = (1, 2, 3, 4, 5)
"""Upper bounds of the histogram of people's ratings."""
ITEMS = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histogram of batch sizes."""

_CALL = ("grpc_type", "grpc_service", "grpc_method")
_WORK = ("lane", "model", "version")
_METHOD = ("model", "version", "method")
_OTHER = "other"


@dataclass(frozen=True)
class _Method:
    """What counts the calls of one method: looking it up by its labels costs more than counting."""

    started: Counter
    seconds: Histogram
    received: Counter
    sent: Counter
    handled: dict[grpc.StatusCode, Counter] = field(default_factory=dict)


class Metrics(Observer):
    """Counts what the data plane and the interceptor tell.

    Args:
        catalog: the served models; read when metrics are.
        backend: what computes.
    """

    def __init__(self, catalog: Catalog, backend: str) -> None:
        self.registry = CollectorRegistry()
        """Everything below, and the process's own figures (memory, CPU, descriptors, garbage collection)."""
        self._models: set[tuple[str, str]] = set()
        self._classes: set[tuple[str, str, str]] = set()
        self._methods: dict[tuple[str, str], _Method] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_State(catalog, backend))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self._started = counter("grpc_server_started", "Calls that began.", *_CALL)
        self._handled = counter("grpc_server_handled", "Calls that ended, by status code.", *_CALL, "grpc_code")
        self._seconds = histogram("grpc_server_handling_seconds", "Seconds from a call's begin to its end.", *_CALL)
        self._received = counter("grpc_server_msg_received", "Messages taken in calls that ended.", *_CALL)
        self._sent = counter("grpc_server_msg_sent", "Messages given in calls that ended.", *_CALL)

        self._waiting = Gauge(
            "saaa_lane_waiting", "Items admitted and not yet at the backend.", _WORK, registry=self.registry
        )
        self._flying = Gauge("saaa_lane_batches_in_flight", "Batches at the backend.", _WORK, registry=self.registry)
        self._wait = histogram("saaa_lane_wait_seconds", "Seconds that an item waited, decoded, for its batch.", *_WORK)
        self._refused = counter("saaa_lane_shed", "Items refused at once: no answer in time.", *_WORK)
        self._lost = counter(
            "saaa_lane_lost",
            "Items admitted for nothing: expired or abandoned before they were computed, or computed too late.",
            *_WORK,
            "reason",
        )
        self._items = histogram("saaa_batch_items", "Items of a batch.", *_WORK, buckets=ITEMS)
        self._batch = histogram("saaa_batch_seconds", "Seconds that a batch took at the backend.", *_WORK)
        self._failed = counter("saaa_batch_failures", "Batches that failed as a whole.", *_WORK, "reason")
        self._item_failed = counter("saaa_item_failures", "Items that a model refused or failed on.", *_WORK, "reason")
        self._recomputed = counter(
            "saaa_items_recomputed", "Items that torch computed again: the runtime's answer was not finite.", *_WORK
        )
        self._stage = histogram("saaa_stage_seconds", "Seconds that a stage of a request took.", "stage")
        self._cache = counter("saaa_cache_requests", "Requests that asked the cache, by what it had.", "outcome")
        self._answers = counter(
            "saaa_predicted_classes", "Answers by their most probable class.", "model", "version", "class"
        )
        self._maps = counter("saaa_attributions", "Maps in answers, by the method that made them.", *_METHOD)
        self._forwards = counter(
            "saaa_attribution_forwards",
            "Cost of these maps as their methods publish it, in forward passes.",
            *_METHOD,
        )
        self._ratings = counter("saaa_ratings", "People's answers that were kept, by what they were asked.", "task")
        self._relevance = histogram(
            "saaa_rating_relevance", "Relevance that people gave to parts of maps.", buckets=RELEVANCES
        )
        self._unwritten = counter("saaa_journal_lost", "Lines of the journal that could not be written.")

    def began(self, call: Call) -> None:
        """A call began."""
        self._of(call).started.inc()

    def ended(self, call: Call, code: grpc.StatusCode, seconds: float) -> None:
        """A call that began has ended with this status after so many seconds."""
        of = self._of(call)
        if code not in of.handled:
            of.handled[code] = self._handled.labels(*_call(call), code.name)
        of.handled[code].inc()
        of.seconds.observe(seconds)
        of.received.inc(call.received)
        of.sent.inc(call.sent)

    def journal_lost(self) -> None:
        """A line of the journal could not be written; from any thread."""
        self._unwritten.inc()

    def waiting(self, key: BatchKey, change: int) -> None:
        """See `Observer`."""
        self._waiting.labels(*self._key(key)).inc(change)

    def refused(self, key: BatchKey) -> None:
        """See `Observer`."""
        self._refused.labels(*self._key(key)).inc()

    def lost(self, key: BatchKey, why: Loss) -> None:
        """See `Observer`."""
        self._lost.labels(*self._key(key), why).inc()

    def departed(self, flight: Flight) -> None:
        """See `Observer`."""
        labels = self._flight(flight)
        self._flying.labels(*labels).inc()
        self._items.labels(*labels).observe(len(flight.batch.items))
        for wait in flight.waits:
            self._wait.labels(*labels).observe(wait)

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        """See `Observer`."""
        labels = self._flight(flight)
        self._flying.labels(*labels).dec()
        self._batch.labels(*labels).observe(seconds)
        if isinstance(outcome, BaseException):
            self._failed.labels(*labels, _reason(outcome)).inc()
            return
        for result in outcome:
            if result.error is not None:
                self._item_failed.labels(*labels, result.error.reason).inc()
            elif result.recomputed:
                self._recomputed.labels(*labels).inc()

    def staged(self, stage: str, seconds: float) -> None:
        """See `Observer`."""
        self._stage.labels(stage).observe(seconds)

    def cached(self, use: CacheUse) -> None:
        """See `Observer`."""
        self._cache.labels(use).inc()

    def answered(self, request: AnalysisRequest, result: AnalysisResult) -> None:
        """See `Observer`."""
        if result.classifier is not None and result.predictions:
            info, label = result.classifier.info, max(result.predictions, key=lambda one: one.probability).label
            self._answers.labels(*self._class(info, label)).inc()
        if result.cached:
            return  # no map was made for it
        costs = {
            (use.info.kind, method.name): (use.info, method.cost_forwards)
            for use in (result.classifier, result.captioner)
            if use is not None
            for method in use.info.methods
        }
        for made in result.attributions:
            kind = ModelKind.EGDD if made.map.kind is TargetKind.CLASS else ModelKind.EGA
            if (kind, made.map.method) in costs:
                info, cost = costs[kind, made.map.method]
                labels = (*self._labels(Work.EXPLAIN, info.name, info.version)[1:], made.map.method)
                self._maps.labels(*labels).inc()
                self._forwards.labels(*labels).inc(cost)

    def rated(self, relevance: float | None) -> None:
        """See `Observer`."""
        self._ratings.labels("human_graph" if relevance is None else "relevance").inc()
        if relevance is not None:
            self._relevance.observe(relevance)

    def _of(self, call: Call) -> _Method:
        found = self._methods.get((call.method, call.kind))
        if found is None:
            labels = _call(call)
            found = self._methods[call.method, call.kind] = _Method(
                started=self._started.labels(*labels),
                seconds=self._seconds.labels(*labels),
                received=self._received.labels(*labels),
                sent=self._sent.labels(*labels),
            )
        return found

    def _class(self, info: ModelInfo, label: str) -> tuple[str, str, str]:
        _, model, version = self._labels(Work.PREDICT, info.name, info.version)
        key = (model, version, label)
        if key not in self._classes:
            if len(self._classes) >= MAX_CLASSES:
                return model, version, _OTHER
            self._classes.add(key)
        return key

    def _key(self, key: BatchKey) -> tuple[str, str, str]:
        return self._labels(key.work, key.model, key.version)

    def _flight(self, flight: Flight) -> tuple[str, str, str]:
        return self._labels(flight.batch.work, flight.batch.model, flight.batch.version)

    def _labels(self, work: Work, model: str, version: str) -> tuple[str, str, str]:
        if (model, version) not in self._models:
            if len(self._models) >= MAX_MODELS:
                return work.value, _OTHER, _OTHER
            self._models.add((model, version))
        return work.value, model, version


class _State(Collector):
    """What the catalog knows at the time of reading; its tuples are replaced whole, so any thread may read them."""

    def __init__(self, catalog: Catalog, backend: str) -> None:
        self._catalog = catalog
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        """The families, made anew."""
        build = GaugeMetricFamily("saaa_build", "The version that runs; always 1.", labels=("version",))
        build.add_metric((saaa.__version__,), 1)
        yield build
        ready = self._catalog.ready
        backend = GaugeMetricFamily("saaa_backend_ready", "1 while any model can answer.", labels=("backend",))
        backend.add_metric((self._backend,), float(bool(ready)))
        yield backend
        models = GaugeMetricFamily(
            "saaa_model_ready",
            "1 while this model can answer: workers up, circuit closed.",
            labels=("model", "version"),
        )
        runtimes = GaugeMetricFamily(
            "saaa_model_runtime",
            "What this model is computed with; always 1.",
            labels=("model", "version", "runtime", "precision"),
        )
        fallbacks = GaugeMetricFamily(
            "saaa_model_fallback",
            "1 while this model is not computed with what was wanted; GetModel says why.",
            labels=("model", "version"),
        )
        for info in self._catalog.models[:MAX_MODELS]:
            models.add_metric((info.name, info.version), float((info.name, info.version) in ready))
            if (used := info.execution) is not None:
                runtimes.add_metric((info.name, info.version, used.runtime, used.precision), 1)
                fallbacks.add_metric((info.name, info.version), float(bool(used.refused)))
        yield from (models, runtimes, fallbacks)


def _call(call: Call) -> tuple[str, str, str]:
    service, _, method = call.method.lstrip("/").partition("/")
    return call.kind, service, method


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, SaaaError) else type(error).__name__
