"""One self-contained HTML page: no scripts, no links out, pictures as data URIs; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from saaa.client import RpcFailed
from saaa.client.results import Analysis, ModelProvenance
from saaa.report import markup
from saaa.report.attributions import section
from saaa.report.nodes import node_styles

_SOURCES = {
    "request": "graph given with the request",
    "proposed": "graph proposed by the service from the attribution",
    "none": "no graph",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page shows of one photo; pictures are PNG bytes."""

    file: str
    analysis: Analysis | None
    error: str | Exception | None = None
    thumbnail: bytes | None = None
    attributions: tuple[bytes, ...] = ()
    """One for each of the analysis' attributions, or none at all."""
    graph: bytes | None = None


def page(cards: Sequence[Card], *, title: str) -> str:
    """The whole page as text."""
    body = "\n".join(_section(card, number) for number, card in enumerate(cards, 1))
    return markup.document(
        title,
        header=f'<p class="muted">{escape(_summary(cards))}</p>\n{_models(cards)}',
        main=f"{_index(cards)}\n{body}",
        footer="Maps show what speaks for a class or word in the model, not what is true of the picture. The captioner "
        "sees\nboxes and roles of the graph's nodes, never their names.",
    )


def _summary(cards: Sequence[Card]) -> str:
    done = [card.analysis for card in cards if card.analysis is not None]
    parts = [f"{len(done)} photo{'' if len(done) == 1 else 's'} analysed"]
    if len(done) < len(cards):
        parts.append(f"{len(cards) - len(done)} refused")
    for name, values in (
        ("saaa", {analysis.provenance.software_version for analysis in done}),
        ("backend", {analysis.provenance.backend for analysis in done}),
    ):
        if known := sorted(values - {""}):
            parts.append(f"{name} {', '.join(known)}")
    return " · ".join(parts)


def _models(cards: Sequence[Card]) -> str:
    rows: dict[tuple[str, str, str, str], None] = {}
    for card in cards:
        if card.analysis is None:
            continue
        provenance = card.analysis.provenance
        for role, model in (("classifier", provenance.classifier), ("captioner", provenance.captioner)):
            if model is not None:
                rows[role, model.name, model.version, model.archive_sha256] = None
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{role}</td><td>{escape(name)}</td><td>{escape(version)}</td><td><code>{escape(digest)}</code></td></tr>"
        for role, name, version, digest in rows
    )
    head = "<tr><th>Model</th><th>Name</th><th>Version</th><th>Archive SHA-256</th></tr>"
    return f'<div class="card"><table>{head}{lines}</table></div>'


def _index(cards: Sequence[Card]) -> str:
    if len(cards) < 2:
        return ""
    links = []
    for number, card in enumerate(cards, 1):
        picture = (
            f'<img alt="" src="{markup.data_uri(card.thumbnail)}">' if card.thumbnail else '<span class="none">!</span>'
        )
        links.append(
            f'<a href="#photo-{number}">{picture}<div><b>{escape(card.file)}</b>'
            f"<span>{escape(_headline(card))}</span></div></a>"
        )
    return f'<nav class="index">{"".join(links)}</nav>'


def _headline(card: Card) -> str:
    if card.analysis is None:
        return "refused"
    if card.analysis.predictions:
        best = card.analysis.predictions[0]
        return f"{best.label} {best.probability:.1%}"
    return card.analysis.captions[0].text if card.analysis.captions else "analysed"


def _section(card: Card, number: int) -> str:
    parts = [f"<h2>{escape(card.file)}</h2>"]
    analysis = card.analysis
    if analysis is not None:
        parts.append(f'<p class="muted">{escape(_facts(analysis))}</p>')
    if card.error is not None:
        parts.append(_refusal(card.error))
    if analysis is not None:
        parts += _answers(card, analysis)
    return f'<section class="card" id="photo-{number}">{"".join(parts)}</section>'


def _facts(analysis: Analysis) -> str:
    facts = [f"{analysis.image_width} x {analysis.image_height} pixels", _SOURCES[analysis.graph_source]]
    if analysis.request_id:
        facts.append(f"request {analysis.request_id}")
    return " · ".join(facts)


def _refusal(error: str | Exception) -> str:
    if not isinstance(error, RpcFailed):
        return f'<div class="refused">{escape(str(error))}</div>'
    fields = "".join(
        f"<li><code>{escape(violation.field)}</code>: {escape(violation.description)}</li>"
        for violation in error.violations
    )
    listing = f"<ul>{fields}</ul>" if fields else ""
    return f'<div class="refused"><b>{escape(error.reason)}</b>: {escape(error.message)}{listing}</div>'


def _answers(card: Card, analysis: Analysis) -> list[str]:
    styles = node_styles(analysis.caption_nodes, analysis.graph)
    columns = []
    if analysis.predictions:
        rows = "".join(
            f'<div class="prediction{" first" if i == 0 else ""}"><span>{escape(prediction.label)}</span>'
            f"{markup.bar(prediction.probability)}<span>{prediction.probability:.1%}</span></div>"
            for i, prediction in enumerate(analysis.predictions)
        )
        columns.append(f"<div><h3>Predictions</h3>{rows}</div>")
    if analysis.captions:
        captions = "".join(markup.caption(caption, styles) for caption in analysis.captions)
        nodes = "".join(markup.node(style) for style in styles)
        heading = "Caption" if len(analysis.captions) == 1 else "Captions"
        columns.append(f'<div><h3>{heading}</h3>{captions}<div class="nodes">{nodes}</div></div>')
    parts = [f'<div class="columns">{"".join(columns)}</div>'] if columns else []
    for i, attribution in enumerate(analysis.attributions):
        picture = card.attributions[i] if i < len(card.attributions) else None
        parts.append(section(attribution, analysis, picture))
    if card.graph is not None:
        parts.append('<div class="wide"><h3>Scene graph and caption words</h3>')
        parts.append(markup.figure(card.graph, "Scene graph drawn on the picture") + "</div>")
    return [*parts, _audit(analysis)]


def _audit(analysis: Analysis) -> str:
    provenance = analysis.provenance
    rows = [("image SHA-256", provenance.image_sha256)]
    for role, model in (("classifier", provenance.classifier), ("captioner", provenance.captioner)):
        if model is not None:
            rows += [(role, _model(model)), (f"{role} archive SHA-256", model.archive_sha256)]
    rows += [("backend", provenance.backend), ("saaa", provenance.software_version)]
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td><code>{escape(value)}</code></td></tr>" for name, value in rows if value
    )
    longest = max(analysis.timings.values(), default=0.0) or 1.0
    times = "".join(
        f'<div class="prediction"><span>{escape(stage)}</span>{markup.bar(value / longest)}'
        f"<span>{value:.1f} ms</span></div>"
        for stage, value in analysis.timings.items()
    )
    return (
        f"<details open><summary>Provenance and timings</summary>"
        f'<div class="columns"><div><table>{lines}</table></div><div>{times}</div></div></details>'
    )


def _model(model: ModelProvenance) -> str:
    parameters = ", ".join(f"{name}={value}" for name, value in sorted(model.parameters.items()))
    return f"{model.name} {model.version}" + (f" ({parameters})" if parameters else "")
