"""An attribution in words, and its part of the page: the map, the graph's nodes, and how far it can be trusted."""

from __future__ import annotations

from html import escape

from saaa.client.attributions import Attribution, Concept, Node, Prediction
from saaa.client.results import Analysis
from saaa.report import markup
from saaa.report.nodes import NodeStyle, node_styles

_SCORES = {
    "effect_share": "Score: share of the objects' positive effects, measured by removing them.",
    "density_share": "Score: share of the objects' densities in the map; effects were not measured.",
}


def target_note(attribution: Attribution) -> str:
    """What the target is, beside its name: a class's probability, a word's place, a node's role."""
    target = attribution.target
    if isinstance(target, Prediction):
        return f"{target.probability:.1%}"
    return target.kind if isinstance(target, Node) else f"words[{target.index}]"


def faithfulness_note(attribution: Attribution) -> str:
    """Every measure that was taken, or that there is none."""
    told = [
        f"{entry.measure.replace('_', ' ')} {entry.value:.3f}"
        for entry in attribution.faithfulness
        if entry.value is not None
    ]
    return f"faithfulness: {', '.join(told) or 'NOT COMPUTED'}"


def section(attribution: Attribution, analysis: Analysis, picture: bytes | None) -> str:
    """One attribution on the page."""
    name = f"{attribution.label}, {attribution.method}"
    kind = {"class": "Attribution", "word": "Word of the caption", "node": "Node in the caption"}[attribution.kind]
    map_ = markup.figure(picture, f"Heat map for {name}") if picture else ""
    weights = _weights(attribution, analysis)
    body = f'<div class="beside"><div>{map_}</div>{weights}</div>' if weights else map_
    return (
        f'<div class="wide"><h3>{kind}: {escape(name)}</h3>{body}'
        f'<p class="muted">{escape(faithfulness_note(attribution))}</p></div>{_concepts(attribution, analysis)}'
    )


def _weights(attribution: Attribution, analysis: Analysis) -> str:
    """What each node that guided the caption adds to a word or node."""
    styles = node_styles(analysis.caption_nodes, analysis.graph)
    if not len(attribution.node_weights) or len(attribution.node_weights) != len(styles):
        return ""
    most = max(float(abs(attribution.node_weights).max()), 1e-12)
    rows = "".join(
        f"<tr><td>{markup.node(style)}</td><td>{markup.bar(weight / most)}</td>"
        f'<td class="number">{weight:.2f}</td></tr>'
        for style, weight in zip(styles, attribution.node_weights.tolist(), strict=True)
    )
    head = '<tr><th>Node</th><th>Speaks for it</th><th class="number">Weight</th></tr>'
    return f"<table>{head}{rows}</table>"


def _concepts(attribution: Attribution, analysis: Analysis) -> str:
    concepts = attribution.concepts
    if not concepts:
        return ""
    styles = node_styles(tuple(concept.node for concept in concepts), analysis.graph)
    measured = any(concept.effect is not None for concept in concepts)
    rows = "".join(_row(concept, style, measured) for concept, style in zip(concepts, styles, strict=True))
    effect = '<th class="number">Effect (logit)</th>' if measured else ""
    head = (
        '<tr><th>Concept</th><th>Role</th><th colspan="2">Score</th><th class="number">Mass</th>'
        f'<th class="number">Density (1 is chance)</th>{effect}</tr>'
    )
    notes = [_SCORES.get(concepts[0].score_definition, "")]
    if attribution.concept_agreement is not None:
        notes.append(f"Map and effects rank the objects alike to {attribution.concept_agreement:+.2f} (1 is the same).")
    elif measured:
        notes.append("Whether map and effects rank the objects alike cannot be told here.")
    table = f'<table>{head}{rows}</table><p class="muted">{escape(" ".join(notes))}</p>'
    if attribution.kind == "class":
        return f'<div class="wide"><h3>Concept attribution</h3>{table}</div>'
    return f"<details><summary>Concept attribution of {escape(attribution.label)}</summary>{table}</details>"


def _row(concept: Concept, style: NodeStyle, measured: bool) -> str:
    aside = ""
    if concept.gap_mass is not None and concept.weaker_mass is not None:
        aside = f'<br><span class="muted">between {concept.gap_mass:.1%}, weaker end {concept.weaker_mass:.1%}</span>'
    effect = ""
    if measured:
        shown = "" if concept.effect is None else f"{concept.effect:+.3f}"
        effect = f'<td class="number" title="{escape(concept.effect_definition)}">{shown}</td>'
    return (
        f"<tr><td>{markup.node(style)}{aside}</td><td>{concept.node.kind}</td><td>{markup.bar(concept.score)}</td>"
        f'<td class="number">{concept.score:.2f}</td><td class="number">{concept.mass:.1%}</td>'
        f'<td class="number">{concept.density:.2f}</td>{effect}</tr>'
    )
