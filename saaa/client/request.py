"""From Python values to request messages: what can be sent at all is found here, ranges are the service's to check."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from saaa.client.attributions import Node
from saaa.client.errors import RequestInvalid
from saaa.v1 import analysis_pb2 as pb

Image = bytes | str | os.PathLike[str]

MAX_REQUEST_BYTES = 32 * 2**20
"""The largest message that the client sends: above any image that a service takes in one (20 MiB by default)."""
MAX_IMAGE_BYTES = 2**30
"""The largest image that the client sends, in pieces where it has to; a service's own limit is lower."""

_OUTPUTS = {
    "predictions": pb.OUTPUT_PREDICTIONS,
    "attributions": pb.OUTPUT_ATTRIBUTIONS,
    "captions": pb.OUTPUT_CAPTIONS,
}
_PRIORITIES = {"interactive": pb.PRIORITY_INTERACTIVE, "batch": pb.PRIORITY_BATCH}

NODE_KINDS = {
    "object": pb.NODE_KIND_OBJECT,
    "attribute": pb.NODE_KIND_ATTRIBUTE,
    "relationship": pb.NODE_KIND_RELATIONSHIP,
}


class SamplingOptions(TypedDict, total=False):
    """How captions are drawn; a key left out or None takes the service's default."""

    temperature: float | None
    """Less than 1 prefers likely words more, 0.01 to 10."""
    top_k: int | None
    """Draw among so many likeliest words."""
    top_p: float | None
    """Then among the fewest likeliest words that have this share of the probability, above 0 to 1."""
    seed: int | None
    """The same seed draws the same captions."""


class AnalyzeOptions(TypedDict, total=False):
    """What to answer and how; a key left out or None takes the service's default."""

    outputs: Iterable[str]
    """Any of "predictions", "attributions", "captions"; empty is all that the served models can give."""
    top_k: int | None
    """How many classes to return, 1 to 1000."""
    method: str | None
    """Attribution method for classes, one of `Client.model(...).attribution_methods`."""
    classes: Sequence[str | int]
    """The classes to explain, by name or index; empty is the most probable one."""
    steps: int | None
    """Integration steps of integrated_gradients, 1 to 64."""
    gamma: float | None
    """Weight of the gamma rule of layer_lrp, cp_lrp and attn_lrp, 0 to 1."""
    masks: int | None
    """Random masks of rise, and coalitions where a graph has too many objects for all, 1 to 8000."""
    seed: int | None
    """Of whatever is drawn at random."""
    deletion: bool
    """Also measure how far each target's probability drops when its map's top tenth is removed."""
    effects: bool
    """Also measure the effect of each node of the graph by removal; needs a graph."""
    words: Sequence[int] | Literal["all"]
    """The words of the best caption to explain, by their place from 0."""
    nodes: Sequence[Node | str]
    """The graph's nodes to explain in the best caption: `Node`s, or text as "object:7", "attribute:7:0" (the first
    attribute of object 7) and "relationship:3"."""
    word_method: str | None
    """Attribution method for words and nodes, one of the captioner's."""
    text: str | None
    """A caption to score and explain instead of making one."""
    beam_width: int | None
    """Of the captioner, 1 (greedy) to 10."""
    captions: int | None
    """How many captions to return, 1 to `beam_width`, or 1 to 10 when they are drawn."""
    max_words: int | None
    """Longest caption in words, 1 to 50."""
    length_penalty: float | None
    """How much longer captions are favoured, 0 to 5."""
    sampling: SamplingOptions | None
    """Draw captions instead of searching for the most probable ones; {} takes every default."""
    classifier: str | None
    """"name" or "name:version"."""
    captioner: str | None
    """"name" or "name:version"."""
    priority: str | None
    """"interactive", when somebody waits, or "batch", which gives way to it."""
    request_id: str
    """At most 128 printable ASCII characters, echoed in the answer and in logs."""


def check_options(options: AnalyzeOptions) -> None:
    """Raises TypeError for an option of another name."""
    surplus = options.keys() - AnalyzeOptions.__annotations__.keys()
    if surplus:
        raise TypeError(f"analyze() got an unexpected keyword argument {min(surplus)!r}")


def analyze_request(image: Image, graph: Mapping[str, Any] | None, options: AnalyzeOptions) -> pb.AnalyzeRequest:
    """Build the message for `Client.analyze`.

    Raises:
        RequestInvalid: a value cannot be put into the message; ranges are the service's to check.
        OSError: the image is a path that cannot be read.
        TypeError: an option of another name.
    """
    check_options(options)
    outputs = tuple(options.get("outputs") or ())
    unknown = [output for output in outputs if output not in _OUTPUTS]
    if unknown:
        raise RequestInvalid("outputs", f"{unknown[0]!r} is not an output; choose from {', '.join(_OUTPUTS)}")
    request = pb.AnalyzeRequest(
        image=image if isinstance(image, bytes) else Path(image).read_bytes(),
        outputs=[_OUTPUTS[output] for output in outputs],
        request_id=options.get("request_id", ""),
    )
    if (priority := options.get("priority")) is not None:
        if priority not in _PRIORITIES:
            raise RequestInvalid("priority", f"{priority!r} is not a priority; choose from {', '.join(_PRIORITIES)}")
        request.priority = _PRIORITIES[priority]
    if graph is not None:
        request.graph.CopyFrom(graph_message(graph))
    _put(request, "top_k", "top_k", options.get("top_k"))
    request.attribution.method = options.get("method") or ""
    request.attribution.classes.extend(str(name) for name in options.get("classes") or ())
    for whole in ("steps", "masks", "seed"):
        _put(request.attribution, whole, whole, options.get(whole))
    _put_targets(request.attribution, options)
    if (text := options.get("text")) is not None:
        request.caption.text = _as_text(text, "text")
    _put(request.caption, "beam_width", "beam_width", options.get("beam_width"))
    _put(request.caption, "count", "captions", options.get("captions"))
    _put(request.caption, "max_words", "max_words", options.get("max_words"))
    put_number(request.caption, "length_penalty", "length_penalty", options.get("length_penalty"))
    if (sampling := options.get("sampling")) is not None:
        _put_sampling(request.caption.sampling, sampling)
    if classifier := options.get("classifier"):
        request.classifier.name, _, request.classifier.version = classifier.partition(":")
    if captioner := options.get("captioner"):
        request.captioner.name, _, request.captioner.version = captioner.partition(":")
    if len(request.image) > MAX_IMAGE_BYTES:
        size, most = len(request.image) / 2**20, MAX_IMAGE_BYTES // 2**20
        text = f"the image has {size:.1f} MiB and at most {most} MiB can be sent; send a smaller picture"
        raise RequestInvalid("image", text)
    return request


def graph_message(region: Mapping[str, Any]) -> pb.SceneGraph:
    """Convert published region JSON; "phrase" and other extra keys are ignored.

    Raises:
        RequestInvalid: a key is missing or a value is of the wrong type or size; the field says where.
    """
    graph = pb.SceneGraph()
    for i, thing in enumerate(_list(region, "objects", "graph")):
        field = f"graph.objects[{i}]"
        message = graph.objects.add(
            name=_text(thing, "name", field),
            attributes=[
                _as_text(name, f"{field}.attributes") for name in _list(thing, "attributes", field, required=False)
            ],
        )
        for target, name, key in (
            (message, "id", "object_id"),
            (message.box, "x", "x"),
            (message.box, "y", "y"),
            (message.box, "width", "w"),
            (message.box, "height", "h"),
        ):
            _put(target, name, f"{field}.{key}", _required(thing, key, field))
    for i, link in enumerate(_list(region, "relationships", "graph", required=False)):
        field = f"graph.relationships[{i}]"
        edge = graph.relationships.add(name=_text(link, "name", field))
        for name, key in (
            ("id", "relationship_id"),
            ("subject_id", "subject_id"),
            ("object_id", "object_id"),
        ):
            _put(edge, name, f"{field}.{key}", _required(link, key, field))
    return graph


def _put_targets(message: pb.AttributionOptions, options: AnalyzeOptions) -> None:
    """What to explain of the caption, what to measure, and how."""
    put_number(message, "gamma", "gamma", options.get("gamma"))
    message.deletion = bool(options.get("deletion"))
    message.effects = bool(options.get("effects"))
    message.word_method = options.get("word_method") or ""
    words = options.get("words") or ()
    if isinstance(words, str):
        if words != "all":
            raise RequestInvalid("words", f'must be whole numbers or "all", not {words!r}')
        message.every_word, words = True, ()
    for index in words:
        place = pb.WordTarget()
        _put(place, "index", "words", index)
        message.words.append(place.index)
    for i, node in enumerate(options.get("nodes") or ()):
        message.nodes.append(node_message(node, f"nodes[{i}]"))


def node_message(node: Node | str, field: str) -> pb.GraphNode:
    """A node without its name, which a request does not need; raises `RequestInvalid`."""
    if isinstance(node, str):
        kind, *numbers = node.split(":")
        try:
            places = [int(number) for number in numbers]
        except ValueError:
            places = []
    else:
        kind, places = node.kind, [node.id, node.attribute_index]
    value = NODE_KINDS.get(kind)
    if value is None or not 1 <= len(places) <= 2:
        text = f'must be a Node, or text such as "object:7", "attribute:7:0" or "relationship:3", not {node!r}'
        raise RequestInvalid(field, text)
    message = pb.GraphNode(kind=value)
    for name, place in zip(("id", "attribute_index"), places, strict=False):
        _put(message, name, field, place)
    return message


def _put(message: Any, name: str, field: str, value: Any) -> None:
    """Set a whole-number field unless `value` is None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestInvalid(field, f"must be a whole number, not {value!r}")
    try:
        setattr(message, name, int(value))
    except ValueError:
        raise RequestInvalid(field, f"{value} is out of range") from None


def put_number(message: Any, name: str, field: str, value: Any) -> None:
    """Set a floating-point field unless `value` is None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise RequestInvalid(field, f"must be a number, not {value!r}")
    try:
        setattr(message, name, float(value))
    except OverflowError:
        raise RequestInvalid(field, "is out of range") from None


def _put_sampling(message: pb.Sampling, sampling: SamplingOptions) -> None:
    if not isinstance(sampling, Mapping) or sampling.keys() - SamplingOptions.__annotations__.keys():
        names = ", ".join(SamplingOptions.__annotations__)
        raise RequestInvalid("sampling", f"must be a dict of any of {names}, not {sampling!r}")
    message.SetInParent()  # set even when nothing in it is
    for name in ("temperature", "top_p"):
        put_number(message, name, f"sampling.{name}", sampling.get(name))
    for name in ("top_k", "seed"):
        _put(message, name, f"sampling.{name}", sampling.get(name))


def _required(entry: Mapping[str, Any], key: str, field: str) -> Any:
    if not isinstance(entry, Mapping):
        raise RequestInvalid(field, f"must be a JSON object with the key {key!r}")
    if entry.get(key) is None:
        raise RequestInvalid(f"{field}.{key}", "is missing")
    return entry[key]


def _list(entry: Mapping[str, Any], key: str, field: str, *, required: bool = True) -> Sequence[Any]:
    if not isinstance(entry, Mapping):
        raise RequestInvalid(field, "must be region JSON: an object with the key 'objects'")
    value = _required(entry, key, field) if required else entry.get(key) or []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise RequestInvalid(f"{field}.{key}", "must be a list")
    return value


def _text(entry: Mapping[str, Any], key: str, field: str) -> str:
    return _as_text(_required(entry, key, field), f"{field}.{key}")


def _as_text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise RequestInvalid(field, f"must be text, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        # A lone surrogate can stand in a Python or JSON string but in no message.
        raise RequestInvalid(field, "is not valid Unicode text; encode it as UTF-8") from None
    return value
