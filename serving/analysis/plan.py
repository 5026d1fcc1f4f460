"""Checks one request against the image's header, the models and the limits: everything that is cheap, before
anything that is dear."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from saaa.errors import ImageRejected, ModelNotFound, OptionInvalid, SceneGraphError
from saaa.images import ImageHeader, read_header
from saaa.scene_graph import SceneGraph
from saaa.work import (
    MAX_LENGTH_PENALTY,
    REGION_METHOD,
    TEMPERATURES,
    CaptionOptions,
    ExplainOptions,
    ModelInfo,
    ModelKind,
    Work,
)
from serving.analysis.explaining import (
    DEFAULTS,
    CaptionExplanation,
    caption_explanation,
    class_targets,
    explain_cost,
    explain_options,
)
from serving.models.catalog import Catalog
from serving.requests import AnalysisRequest, Output, Selector
from serving.settings import RequestLimits
from serving.violations import Violations

CLASSIFIER_OUTPUTS = frozenset({Output.PREDICTIONS, Output.ATTRIBUTIONS})
"""What a classifier answers; the rest is the captioner's."""


@dataclass(frozen=True, kw_only=True)
class ClassifyPlan:
    """What the classifier has to do."""

    model: ModelInfo
    work: Work
    """PREDICT or EXPLAIN."""
    targets: tuple[int, ...] = ()
    options: ExplainOptions = DEFAULTS
    graph: SceneGraph | None = None
    """Whose objects are removed; None when none are."""
    cost_forwards: float = 1.0
    """In forward passes of one image."""


@dataclass(frozen=True, kw_only=True)
class CaptionPlan:
    """What the captioner has to do."""

    model: ModelInfo
    options: CaptionOptions
    text: tuple[str, ...] | None = None
    """A caption to score instead of making one."""
    explanation: CaptionExplanation | None = None

    @property
    def cost_forwards(self) -> float:
        """In forward passes of one image."""
        return 1.0 + (self.explanation.cost_forwards if self.explanation else 0.0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request that can be answered, and how."""

    header: ImageHeader
    """Of the image."""
    outputs: frozenset[Output]
    top_k: int | None
    graph: SceneGraph | None
    classify: ClassifyPlan | None
    caption: CaptionPlan | None


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
    header = check_image(request.image, limits, violations, max_bytes=image_bytes(request, limits))
    if request.graph is not None:
        _check_graph(request.graph, header, limits, violations)
    _check_options(request, limits, violations)
    if not catalog.known:
        violations.raise_any()
        catalog.require_known()

    classifier = _choose(request, request.classifier, ModelKind.EGDD, "classifier", catalog, violations)
    captioner = _choose(request, request.captioner, ModelKind.EGA, "captioner", catalog, violations)
    targets = class_targets(request.classes, classifier, violations)
    explain = explain_options(request.explain, classifier, request.graph, violations)
    explanation = caption_explanation(request, captioner, violations)
    _check_text(request, captioner, violations)
    outputs = _outputs(request, classifier, captioner, violations)
    _check_caption_wishes(request, outputs, violations)
    _check_guide(request.graph, outputs, captioner, violations)
    violations.raise_any()
    assert header is not None

    plan = Plan(
        header=header,
        outputs=outputs,
        top_k=request.top_k,
        graph=request.graph,
        classify=_classify_plan(request, outputs, classifier, targets, explain),
        caption=_caption_plan(request, outputs, captioner, explanation),
    )
    _check_cost(plan, limits)
    for part in (plan.classify, plan.caption):
        if part is not None:
            catalog.require_ready(part.model)
    return plan


def image_bytes(request: AnalysisRequest, limits: RequestLimits) -> int:
    """The most bytes that the request's image may have."""
    return limits.max_upload_bytes if request.uploaded else limits.max_image_bytes


def check_image(
    data: bytes, limits: RequestLimits, violations: Violations, *, field: str = "image", max_bytes: int | None = None
) -> ImageHeader | None:
    """The image's header, or None when a violation of `field` was noted; `max_bytes` is the message's unless given."""
    if not data:
        violations.add(ImageRejected("The image is missing; send the bytes of an image file.", field=field))
        return None
    most = limits.max_image_bytes if max_bytes is None else max_bytes
    if len(data) > most:
        violations.add(
            ImageRejected(
                f"The image has {len(data)} bytes, at most {most} are taken; send a smaller file.",
                field=field,
            )
        )
        return None
    try:
        header = read_header(data, max_bytes=most)
    except ImageRejected as error:
        violations.add(ImageRejected(error.message, field=field))
        return None
    if header.width * header.height > limits.max_image_pixels:
        violations.add(
            ImageRejected(
                f"The image has {header.width} x {header.height} pixels, at most {limits.max_image_pixels} are "
                "taken; send a smaller picture.",
                field=field,
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
    if header is not None:
        check_inside(graph, header.width, header.height, violations)


def check_inside(graph: SceneGraph, width: int, height: int, violations: Violations, *, field: str = "graph") -> None:
    """Note every box that is not inside an image of `width` x `height` pixels."""
    for index, thing in enumerate(graph.objects):
        # One object at a time, so that every box outside the image is told.
        try:
            SceneGraph((thing,)).check_inside(width, height)
        except SceneGraphError as error:
            inner = error.field.replace("objects[0]", f"objects[{index}]")
            violations.add(SceneGraphError(error.message, field=f"{field}.{inner}"))


def _check_guide(
    graph: SceneGraph | None, outputs: frozenset[Output], captioner: ModelInfo | None, violations: Violations
) -> None:
    """No node may be dropped in silence."""
    if graph is None or captioner is None or Output.CAPTIONS not in outputs or violations.about("graph"):
        return
    nodes = len(graph.nodes())
    if nodes > captioner.max_nodes:
        violations.add(
            SceneGraphError(
                f"The graph has {nodes} nodes (objects, attributes and relationships), captions of {captioner.name} "
                f"are guided by at most {captioner.max_nodes}; leave out the least important, or ask for no captions.",
                field="graph",
            )
        )


def _check_options(request: AnalysisRequest, limits: RequestLimits, violations: Violations) -> None:
    caption, explain = request.caption, request.explain
    checks = (
        ("top_k", request.top_k, limits.max_top_k),
        ("attribution.steps", explain.steps, limits.max_steps),
        ("attribution.masks", explain.masks, limits.max_masks),
        ("caption.beam_width", caption.beam_width, limits.max_beam_width),
        ("caption.max_words", caption.max_words, limits.max_words),
    )
    for field, value, most in checks:
        if value is not None:
            violations.check(1 <= value <= most, field, f"{value} is out of range; use 1 to {most}.")
    _check_decoding(caption, limits, violations)
    violations.check(0 <= explain.gamma <= 1, "attribution.gamma", f"{explain.gamma:g} is out of range; use 0 to 1.")
    listed = (request.classes, request.caption_targets.words, request.caption_targets.nodes)
    count = sum(map(len, listed))
    violations.check(
        count <= limits.max_targets,
        "attribution",
        f"{count} classes, words and nodes are listed, at most {limits.max_targets} are explained in one request.",
    )
    check_request_id(request.request_id, limits, violations)


def check_request_id(named: str, limits: RequestLimits, violations: Violations) -> None:
    """Note a request id that cannot stand in logs."""
    violations.check(
        len(named) <= limits.max_request_id and named.isascii() and (not named or named.isprintable()),
        "request_id",
        f"Use at most {limits.max_request_id} printable ASCII characters.",
    )


def _check_decoding(caption: CaptionOptions, limits: RequestLimits, violations: Violations) -> None:
    sampling = caption.sampling
    most = caption.beam_width if sampling is None else limits.max_beam_width
    violations.check(
        1 <= caption.count <= max(1, most),
        "caption.count",
        f"{caption.count} is out of range; use 1 to "
        + (f"beam_width ({most})." if sampling is None else f"{most} drawn captions."),
    )
    violations.check(
        0 <= caption.length_penalty <= MAX_LENGTH_PENALTY,
        "caption.length_penalty",
        f"{caption.length_penalty:g} is out of range; use 0 to {MAX_LENGTH_PENALTY:g}.",
    )
    if sampling is None:
        return
    low, high = TEMPERATURES
    violations.check(
        low <= sampling.temperature <= high,
        "caption.sampling.temperature",
        f"{sampling.temperature:g} is out of range; use {low:g} to {high:g}.",
    )
    violations.check(
        sampling.top_k is None or sampling.top_k >= 1,
        "caption.sampling.top_k",
        "0 words cannot be drawn from; use at least 1, or leave it unset for all.",
    )
    violations.check(
        0 < sampling.top_p <= 1,
        "caption.sampling.top_p",
        f"{sampling.top_p:g} is out of range; use above 0 to 1.",
    )


def _check_text(request: AnalysisRequest, captioner: ModelInfo | None, violations: Violations) -> None:
    if request.text is None:
        return
    violations.check(bool(request.text), "caption.text", "The caption has no words; leave it out to have one made.")
    if captioner is not None:
        violations.check(
            len(request.text) <= captioner.max_words,
            "caption.text",
            f"The caption has {len(request.text)} words, {captioner.name} reads at most {captioner.max_words}.",
        )


def _check_caption_wishes(request: AnalysisRequest, outputs: frozenset[Output], violations: Violations) -> None:
    """What is wanted of a caption must not be dropped in silence."""
    targets = request.caption_targets
    if request.text is None and not targets:
        return
    wishes = {
        "caption.text": (request.text is not None, {Output.CAPTIONS}),
        "attribution.words": (bool(targets.words), {Output.CAPTIONS, Output.ATTRIBUTIONS}),
        "attribution.every_word": (targets.every_word, {Output.CAPTIONS, Output.ATTRIBUTIONS}),
        "attribution.nodes": (bool(targets.nodes), {Output.CAPTIONS, Output.ATTRIBUTIONS}),
    }
    for field, (wanted, needed) in wishes.items():
        missing = " and ".join(sorted(output.value for output in needed - outputs))
        violations.check(
            not (wanted and missing), field, f"This needs {missing}, which are not asked for or cannot be answered."
        )


def _check_cost(plan: Plan, limits: RequestLimits) -> None:
    parts = (plan.classify, plan.caption)
    cost = sum(part.cost_forwards for part in parts if part is not None)
    if cost > limits.max_cost_forwards:
        raise OptionInvalid(
            f"The attributions asked for cost about {cost:.0f} forward passes, at most {limits.max_cost_forwards} are "
            "computed in one request. Ask for fewer targets, masks, steps or objects, or for a cheaper method; "
            "`saaa-train attribute` does such work offline.",
            field="attribution",
        )


def _choose(
    request: AnalysisRequest,
    selector: Selector | None,
    kind: ModelKind,
    field: str,
    catalog: Catalog,
    violations: Violations,
) -> ModelInfo | None:
    if selector is None:
        return catalog.default(kind, request_id=request.request_id)
    if not selector.name:
        violations.add(OptionInvalid("Name the model, or leave the selector out.", field=f"{field}.name"))
        return None
    with violations.catch():
        return catalog.find(
            selector.name, selector.version, kind=kind, field=f"{field}.name", request_id=request.request_id
        )
    return None


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
        if request.caption_targets:
            possible.add(Output.ATTRIBUTIONS)
    wanted = request.outputs or frozenset(possible)
    if wanted <= possible and wanted:
        return wanted
    if violations.found:
        # A model or graph that was named wrongly is reason enough; what follows from it would only confuse.
        return wanted
    if classifier is None and captioner is None:
        violations.add(ModelNotFound("No model is served.", field="outputs"))
    elif classifier is None and (missing := wanted & CLASSIFIER_OUTPUTS - possible):
        violations.add(_not_served("classifier", missing))
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
        return ClassifyPlan(model=classifier, work=Work.PREDICT)
    graph = request.graph if options.effects or options.method == REGION_METHOD else None
    return ClassifyPlan(
        model=classifier,
        work=Work.EXPLAIN,
        targets=targets,
        options=options,
        graph=graph,
        cost_forwards=explain_cost(classifier, options, max(1, len(targets)), graph),
    )


def _caption_plan(
    request: AnalysisRequest,
    outputs: frozenset[Output],
    captioner: ModelInfo | None,
    explanation: CaptionExplanation | None,
) -> CaptionPlan | None:
    if captioner is None or Output.CAPTIONS not in outputs:
        return None
    options = request.caption
    if options.max_words is not None and captioner.max_words:
        options = replace(options, max_words=min(options.max_words, captioner.max_words))
    return CaptionPlan(model=captioner, options=options, text=request.text, explanation=explanation)
