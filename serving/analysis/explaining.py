"""What a request wants explained, checked against the models that would do it, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from saaa.concepts import EXACT_REGIONS
from saaa.errors import OptionInvalid
from saaa.scene_graph import SceneGraph
from saaa.work import AUTO_METHOD, REGION_METHOD, ExplainOptions, MethodInfo, ModelInfo, TargetKind
from serving.requests import AnalysisRequest, CaptionTargets
from serving.violations import Violations

DEFAULTS = ExplainOptions()
REMOVING_METHODS = frozenset({"occlusion", "rise", REGION_METHOD})
"""Methods that ask the model about images with parts removed; one round of asking serves all targets."""
SAMPLED_RELATIONSHIP_COST = 32
"""The least forwards for the effect of a relationship where not all coalitions are computed."""
_READS = {
    "layer_lrp": ("gamma",),
    "cp_lrp": ("gamma",),
    "attn_lrp": ("gamma",),
    "integrated_gradients": ("steps",),
    "rise": ("masks", "seed"),
}
"""The options that each method reads; for the others they must not split batches."""


@dataclass(frozen=True, kw_only=True)
class CaptionExplanation:
    """What the captioner explains of its best caption."""

    words: tuple[int, ...] = ()
    every_word: bool = False
    nodes: tuple[int, ...] = ()
    """Places in the graph's order."""
    options: ExplainOptions
    cost_forwards: float


def options_read(options: ExplainOptions, objects: int) -> tuple[str, ...]:
    """The fields of `options`, beside the method itself, on which the result depends.

    Args:
        options: as asked for, the method by its own name.
        objects: of the request's graph, 0 without one.
    """
    read = _READS.get(options.method, ())
    if (options.method == REGION_METHOD or options.effects) and objects > EXACT_REGIONS:
        read = tuple(dict.fromkeys((*read, "masks", "seed")))
    return read


def class_targets(classes: tuple[str, ...], classifier: ModelInfo | None, violations: Violations) -> tuple[int, ...]:
    """The indices of the classes to explain."""
    if classifier is None or not classes:
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


def explain_options(
    wanted: ExplainOptions, classifier: ModelInfo | None, graph: SceneGraph | None, violations: Violations
) -> ExplainOptions:
    """The options with the method by its own name, and what nobody reads set back."""
    if classifier is None:
        return wanted
    method = _method(wanted.method, classifier, {TargetKind.CLASS}, "attribution.method", violations)
    if method is None:
        return wanted
    if graph is None and not violations.about("graph"):
        why = (
            "Objects of a scene graph are removed for it, and a proposed graph comes from the map itself; send a graph."
        )
        violations.check(method.name != REGION_METHOD, "graph", f"The method {method.name} needs a graph. {why}")
        violations.check(not wanted.effects, "graph", f"Effects need a graph. {why}")
    options = replace(wanted, method=method.name)
    read = options_read(options, len(graph.objects) if graph else 0)
    unread = {name: getattr(DEFAULTS, name) for name in ("steps", "gamma", "masks", "seed") if name not in read}
    return replace(options, **unread)


def explain_cost(classifier: ModelInfo, options: ExplainOptions, targets: int, graph: SceneGraph | None) -> float:
    """Cost of explaining one image in forward passes.

    Args:
        classifier: whose methods say what they cost with default options.
        options: as `explain_options` gives them.
        targets: number of classes, at least 1.
        graph: whose objects are removed; None when none are.
    """
    cost = next((method.cost_forwards for method in classifier.methods if method.name == options.method), 1.0)
    if options.method == REGION_METHOD and graph is not None:
        cost = _coalitions(graph, options)
    cost *= options.steps / DEFAULTS.steps
    if options.method == "rise":
        cost *= options.masks / DEFAULTS.masks
    cost *= 1 if options.method in REMOVING_METHODS else targets
    cost += targets if options.deletion else 0
    cost += _effects(graph, options) if options.effects and graph is not None else 0
    return cost


def caption_explanation(
    request: AnalysisRequest, captioner: ModelInfo | None, violations: Violations
) -> CaptionExplanation | None:
    """What the captioner is to explain; None when nothing, or when it cannot."""
    wanted = request.caption_targets
    violations.check(
        not (wanted.every_word and wanted.words),
        "attribution.words",
        "Either name words or ask for every word, not both.",
    )
    if captioner is None or not wanted:
        return None
    longest = captioner.max_words
    if request.text is not None:
        longest = len(request.text)
    elif request.caption.max_words is not None:
        longest = min(longest, request.caption.max_words)
    for place, index in enumerate(wanted.words):
        what = "The caption has" if request.text is not None else f"Captions of {captioner.name} have at most"
        violations.check(
            index < longest,
            f"attribution.words[{place}]",
            f"There is no word {index}: {what} {longest} words, counted from 0.",
        )
    nodes = _node_places(wanted, request.graph, violations)
    kinds = {TargetKind.WORD} if wanted.words or wanted.every_word else set()
    kinds |= {TargetKind.NODE} if wanted.nodes else set()
    method = _method(wanted.method, captioner, kinds, "attribution.word_method", violations)
    if method is None:
        return None
    # The map of a node takes those of all words.
    count = longest if wanted.every_word or wanted.nodes else len(wanted.words)
    return CaptionExplanation(
        words=wanted.words,
        every_word=wanted.every_word,
        nodes=nodes,
        options=ExplainOptions(method=method.name, deletion=request.explain.deletion),
        cost_forwards=count * (method.cost_forwards + request.explain.deletion),
    )


def _node_places(wanted: CaptionTargets, graph: SceneGraph | None, violations: Violations) -> tuple[int, ...]:
    if wanted.nodes and graph is None and not violations.about("graph"):
        violations.add(
            OptionInvalid(
                "A proposed graph's nodes cannot be named beforehand; send a graph, or ask for every word.",
                field="attribution.nodes",
            )
        )
    if graph is None:
        return ()
    known = {(node.kind, node.id, node.attribute_index): place for place, node in enumerate(graph.nodes())}
    places = []
    for number, key in enumerate(wanted.nodes):
        kind, identifier, attribute = key
        place = known.get(key)
        named = f"{kind.name.lower()} {identifier}" + (f", attribute {attribute}" if attribute else "")
        field = f"attribution.nodes[{number}]"
        if place is None:
            violations.add(
                OptionInvalid(f"The graph has no node {named}; take kind and id from the graph.", field=field)
            )
        else:
            places.append(place)
    return tuple(places)


def _method(
    wanted: str, model: ModelInfo, kinds: set[TargetKind], field: str, violations: Violations
) -> MethodInfo | None:
    """The model's method of that name, or its first that explains these kinds of targets."""
    able = [method for method in model.methods if kinds.issubset(method.targets)]
    for method in able:
        if wanted in (AUTO_METHOD, method.name):
            return method
    what = " and ".join(sorted(kind.value for kind in kinds))
    names = ", ".join([AUTO_METHOD, *(method.name for method in able)])
    advice = f"use {names}." if able else "it explains none; leave them out or use another model."
    violations.add(
        OptionInvalid(f"The model {model.name} offers no method {wanted[:64]!a} for a {what}; {advice}", field=field)
    )
    return None


def _coalitions(graph: SceneGraph, options: ExplainOptions) -> float:
    """Images with some of the objects removed that it takes: all of them, or as many as are drawn."""
    objects = len(graph.objects)
    return float(2**objects if objects <= EXACT_REGIONS else options.masks)


def _effects(graph: SceneGraph, options: ExplainOptions) -> float:
    """As `saaa.attribution.effects` computes them: where not all coalitions are, relationships need their own."""
    cost = _coalitions(graph, options) + sum(bool(thing.attributes) for thing in graph.objects)
    if graph.relationships and len(graph.objects) > EXACT_REGIONS:
        cost += max(options.masks, SAMPLED_RELATIONSHIP_COST * len(graph.relationships))
    return cost
