"""Checks one request against the image's header, the models and the limits: everything that is cheap, before
anything that is dear."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace

from saaa.errors import ImageRejected, InvalidInput, ModelNotFound, OptionInvalid, SaaaError, SceneGraphError
from saaa.images import ImageHeader, read_header
from saaa.scene_graph import SceneGraph
from saaa.work import AUTO_METHOD, CaptionOptions, ExplainOptions, ModelInfo, ModelKind, Work
from serving.catalog import Catalog
from serving.requests import AnalysisRequest, Output, RequestInvalid, Selector
from serving.settings import RequestLimits

STEPPED_METHODS = frozenset({"integrated_gradients"})
"""Methods that read `ExplainOptions.steps`; for the others it must not split batches."""

CLASSIFIER_OUTPUTS = frozenset({Output.PREDICTIONS, Output.ATTRIBUTIONS})
"""What a classifier answers; the rest is the captioner's."""


@dataclass(frozen=True, kw_only=True)
class ClassifyPlan:
    """What the classifier has to do."""

    model: ModelInfo
    work: Work
    """PREDICT or EXPLAIN."""
    targets: tuple[int, ...]
    options: ExplainOptions


@dataclass(frozen=True, kw_only=True)
class CaptionPlan:
    """What the captioner has to do."""

    model: ModelInfo
    options: CaptionOptions


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request that can be answered, and how."""

    image_size: tuple[int, int]
    """Width and height of the upright image in pixels."""
    outputs: frozenset[Output]
    top_k: int
    graph: SceneGraph | None
    classify: ClassifyPlan | None
    caption: CaptionPlan | None


class Violations:
    """Gathers the faults of one request, so that the caller hears of all of them at once."""

    def __init__(self, found: tuple[InvalidInput, ...] = ()) -> None:
        self.found: list[SaaaError] = list(found)

    def add(self, error: SaaaError) -> None:
        """Note a fault."""
        self.found.append(error)

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Note what is raised inside."""
        try:
            yield
        except (InvalidInput, ModelNotFound) as error:
            self.add(error)

    def check(self, condition: bool, field: str, message: str) -> None:
        """Note a fault of an option unless the condition holds."""
        if not condition:
            self.add(OptionInvalid(message, field=field))

    def raise_any(self) -> None:
        """Raises what was found: the fault itself when it is one, `RequestInvalid` when they are several."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise RequestInvalid(self.found)


def make_plan(request: AnalysisRequest, catalog: Catalog, limits: RequestLimits) -> Plan:
    """Decide how to answer a request.

    Args:
        request: as it was read.
        catalog: the served models.
        limits: the bounds of a request.

    Raises:
        RequestInvalid, InvalidInput, ModelNotFound: the request cannot be answered; all faults are told.
        BackendUnavailable: the models are not known yet, or cannot answer now.
    """
    violations = Violations(request.violations)
    header = _check_image(request.image, limits, violations)
    if request.graph is not None:
        _check_graph(request.graph, header, limits, violations)
    _check_options(request, limits, violations)
    if not catalog.known:
        violations.raise_any()
        catalog.require_known()

    classifier = _choose(request.classifier, ModelKind.EGDD, "classifier", catalog, violations)
    captioner = _choose(request.captioner, ModelKind.EGA, "captioner", catalog, violations)
    targets = _targets(request.classes, classifier, violations)
    explain = _explain_options(request.explain, classifier, violations)
    outputs = _outputs(request, classifier, captioner, violations)
    violations.raise_any()
    assert header is not None

    plan = Plan(
        image_size=(header.width, header.height),
        outputs=outputs,
        top_k=request.top_k,
        graph=request.graph,
        classify=_classify_plan(request, outputs, classifier, targets, explain),
        caption=_caption_plan(request, outputs, captioner),
    )
    for part in (plan.classify, plan.caption):
        if part is not None:
            catalog.require_ready(part.model)
    return plan


def _check_image(data: bytes, limits: RequestLimits, violations: Violations) -> ImageHeader | None:
    if not data:
        violations.add(ImageRejected("The image is missing; send the bytes of an image file.", field="image"))
        return None
    if len(data) > limits.max_image_bytes:
        violations.add(
            ImageRejected(
                f"The image has {len(data)} bytes, at most {limits.max_image_bytes} are taken; send a smaller file.",
                field="image",
            )
        )
        return None
    try:
        header = read_header(data)
    except ImageRejected as error:
        violations.add(ImageRejected(error.message, field="image"))
        return None
    if header.width * header.height > limits.max_image_pixels:
        violations.add(
            ImageRejected(
                f"The image has {header.width} x {header.height} pixels, at most {limits.max_image_pixels} are "
                "taken; send a smaller picture.",
                field="image",
            )
        )
        return None
    return header


def _check_graph(graph: SceneGraph, header: ImageHeader | None, limits: RequestLimits, violations: Violations) -> None:
    nodes = len(graph.nodes())
    if nodes > limits.max_graph_nodes:
        violations.add(
            SceneGraphError(
                f"The graph has {nodes} nodes (objects, attributes and relationships), at most "
                f"{limits.max_graph_nodes} are taken; leave out the least important.",
                field="graph",
            )
        )
    if header is None:
        return
    for index, thing in enumerate(graph.objects):
        # One object at a time, so that every box outside the image is told.
        try:
            SceneGraph((thing,)).check_inside(header.width, header.height)
        except SceneGraphError as error:
            field = error.field.replace("objects[0]", f"objects[{index}]")
            violations.add(SceneGraphError(error.message, field=f"graph.{field}"))


def _check_options(request: AnalysisRequest, limits: RequestLimits, violations: Violations) -> None:
    caption, explain = request.caption, request.explain
    checks = (
        ("top_k", request.top_k, limits.max_top_k),
        ("attribution.steps", explain.steps, limits.max_steps),
        ("caption.beam_width", caption.beam_width, limits.max_beam_width),
        ("caption.max_words", caption.max_words, limits.max_words),
    )
    for field, value, most in checks:
        if value is not None:
            violations.check(1 <= value <= most, field, f"{value} is out of range; use 1 to {most}.")
    violations.check(
        1 <= caption.count <= max(1, caption.beam_width),
        "caption.count",
        f"{caption.count} is out of range; use 1 to beam_width ({caption.beam_width}).",
    )
    violations.check(
        len(request.classes) <= limits.max_targets,
        "attribution.classes",
        f"{len(request.classes)} classes are asked for, at most {limits.max_targets} are explained in one request.",
    )
    named = request.request_id
    violations.check(
        len(named) <= limits.max_request_id and named.isascii() and (not named or named.isprintable()),
        "request_id",
        f"Use at most {limits.max_request_id} printable ASCII characters.",
    )


def _choose(
    selector: Selector | None, kind: ModelKind, field: str, catalog: Catalog, violations: Violations
) -> ModelInfo | None:
    if selector is None:
        return catalog.default(kind)
    if not selector.name:
        violations.add(OptionInvalid("Name the model, or leave the selector out.", field=f"{field}.name"))
        return None
    with violations.catch():
        return catalog.find(selector.name, selector.version, kind=kind, field=f"{field}.name")
    return None


def _targets(classes: tuple[str, ...], classifier: ModelInfo | None, violations: Violations) -> tuple[int, ...]:
    if classifier is None:
        return ()
    indices = {label: index for index, label in enumerate(classifier.classes)}
    targets: list[int] = []
    for place, text in enumerate(classes):
        index = indices.get(text)
        if index is None and text.isascii() and text.isdecimal() and len(text) <= 9:
            index = int(text)
        if index is None or index >= len(classifier.classes):
            violations.add(
                OptionInvalid(
                    f"The model {classifier.name} has no class {text[:64]!a}; use one of its "
                    f"{len(classifier.classes)} class names (GetModel lists them) or an index from 0.",
                    field=f"attribution.classes[{place}]",
                )
            )
        else:
            targets.append(index)
    return tuple(targets)


def _explain_options(wanted: ExplainOptions, classifier: ModelInfo | None, violations: Violations) -> ExplainOptions:
    if classifier is None:
        return wanted
    names = [method.name for method in classifier.methods]
    method = names[0] if wanted.method == AUTO_METHOD and names else wanted.method
    violations.check(
        method in names or wanted.method == AUTO_METHOD,
        "attribution.method",
        f"The model {classifier.name} offers no method {method[:64]!a}; use {', '.join([AUTO_METHOD, *names])}.",
    )
    steps = wanted.steps if method in STEPPED_METHODS else ExplainOptions().steps
    return ExplainOptions(method=method, steps=steps)


def _outputs(
    request: AnalysisRequest,
    classifier: ModelInfo | None,
    captioner: ModelInfo | None,
    violations: Violations,
) -> frozenset[Output]:
    """What will be answered: what was asked for, or else all that can be."""
    possible: set[Output] = set()
    if classifier is not None:
        possible |= CLASSIFIER_OUTPUTS
    if captioner is not None and (request.graph is not None or classifier is not None):
        possible.add(Output.CAPTIONS)
    wanted = request.outputs or frozenset(possible)
    if wanted <= possible and wanted:
        return wanted
    if violations.found:
        # A model or graph that was named wrongly is reason enough; what follows from it would only confuse.
        return wanted
    if classifier is None and captioner is None:
        violations.add(ModelNotFound("No model is served.", field="outputs"))
    elif classifier is None and wanted & CLASSIFIER_OUTPUTS:
        violations.add(_not_served("classifier", wanted & CLASSIFIER_OUTPUTS))
    elif captioner is None:
        violations.add(_not_served("captioner", {Output.CAPTIONS}))
    else:
        violations.add(
            OptionInvalid(
                "A caption needs a scene graph, and no classifier is served that could propose one; send a graph.",
                field="graph",
            )
        )
    return wanted


def _not_served(model: str, outputs: Set[Output]) -> ModelNotFound:
    names = " and ".join(sorted(output.value for output in outputs))
    return ModelNotFound(f"No {model} is served, so there are no {names}; do not ask for them.", field="outputs")


def _classify_plan(
    request: AnalysisRequest,
    outputs: frozenset[Output],
    classifier: ModelInfo | None,
    targets: tuple[int, ...],
    options: ExplainOptions,
) -> ClassifyPlan | None:
    proposes = Output.CAPTIONS in outputs and request.graph is None
    if classifier is None or not (proposes or outputs & CLASSIFIER_OUTPUTS):
        return None
    if Output.ATTRIBUTIONS not in outputs and not proposes:
        return ClassifyPlan(model=classifier, work=Work.PREDICT, targets=(), options=ExplainOptions())
    return ClassifyPlan(model=classifier, work=Work.EXPLAIN, targets=targets, options=options)


def _caption_plan(
    request: AnalysisRequest, outputs: frozenset[Output], captioner: ModelInfo | None
) -> CaptionPlan | None:
    if captioner is None or Output.CAPTIONS not in outputs:
        return None
    options = request.caption
    if options.max_words is not None and captioner.max_words:
        options = replace(options, max_words=min(options.max_words, captioner.max_words))
    return CaptionPlan(model=captioner, options=options)
