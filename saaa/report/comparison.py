"""One self-contained HTML page that shows what several models say of the same photo, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saaa.client.attributions import Attribution, Prediction
from saaa.client.models import Model
from saaa.report import colors, markup
from saaa.report.attributions import faithfulness_note
from saaa.report.heatmap import Scale, draw_overlay

_STYLE = """
main, header.top { max-width: 1400px; }
.scroll { overflow-x: auto; margin-top: 12px; }
.asked { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, auto)); gap: 28px; align-items: start; }
.asked figure { max-width: 320px; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 20px; margin-top: 16px; }
.maps > div { max-width: 440px; }
.maps h3 { text-transform: none; letter-spacing: 0; font-size: 16px; color: var(--ink); margin: 0; }
.maps p { font-size: 14px; }
.maps figure { margin-top: 8px; }
.scale { display: flex; align-items: center; gap: 10px; font-size: 14px; color: var(--muted); margin-top: 10px; }
.scale span { width: 260px; height: 14px; border: 1px solid var(--line); border-radius: 3px; }
.versions th { vertical-align: bottom; }
.versions td:last-child, .versions th:last-child { padding-right: 0; }
.versions td { min-width: 130px; }
.versions .top { font-weight: 600; }
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model says of the photo."""

    model: Model
    predictions: tuple[Prediction, ...] = ()
    """All its classes, best first."""
    attributions: tuple[Attribution, ...] = ()
    """Of the classes that are compared, those that it knows."""
    failure: str = ""
    """Why something of it is missing; "" when nothing is."""

    def probability(self, label: str) -> float | None:
        """Of a class; None where the model does not know it or did not answer."""
        return next((entry.probability for entry in self.predictions if entry.label == label), None)


def titles(answers: Sequence[Answer]) -> list[str]:
    """A short name for each model: its version alone where all are of the same name."""
    alone = len({answer.model.name for answer in answers}) == 1
    return [f"version {a.model.version}" if alone else f"{a.model.name} {a.model.version}" for a in answers]


def compared(answers: Sequence[Answer], count: int) -> list[str]:
    """The classes that some model has among its `count` most probable ones; the most probable anywhere first."""
    best: dict[str, float] = {}
    for answer in answers:
        for entry in answer.predictions[:count]:
            best[entry.label] = max(entry.probability, best.get(entry.label, 0.0))
    return sorted(best, key=lambda label: (-best[label], label))


def difference(answer: Answer, first: Answer, label: str) -> float | None:
    """How much more probable a class is than for the first model, in [-1, 1]; None where either does not know it."""
    here, there = answer.probability(label), first.probability(label)
    return None if here is None or there is None else here - there


def points(more: float) -> str:
    """A difference of probabilities in percentage points, such as "+1.5"."""
    rounded = round(100 * more, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def comparison_page(
    photo: str, image: NDArray[np.uint8], answers: Sequence[Answer], *, targets: Sequence[str], top_k: int
) -> str:
    """Write the page.

    Args:
        photo: what people call it.
        image: the upright picture, uint8 (height, width, 3) RGB.
        answers: of each model, at least one; differences are to the first.
        targets: the classes whose maps are shown, in order.
        top_k: the table lists each model's so many most probable classes.

    Returns:
        The whole page; it needs no other file and no network.
    """
    told = sum(bool(answer.predictions) for answer in answers)
    header = f"{photo} · {image.shape[1]} x {image.shape[0]} pixels · {told} of {len(answers)} models answered"
    parts = [_models(image, answers), _probabilities(answers, top_k)]
    parts += [_maps(image, answers, target) for target in targets]
    return markup.document(
        "Models compared",
        header=f'<p class="muted">{escape(header)}</p>',
        main="\n".join(parts),
        footer="Maps show what speaks for a class in a model, not what is true of the picture. The maps of a class "
        "share one scale as far as they are made by the same method.",
        style=_STYLE,
    )


def _models(image: NDArray[np.uint8], answers: Sequence[Answer]) -> str:
    rows = []
    for answer in answers:
        best = answer.predictions[0] if answer.predictions else None
        says = f"{escape(best.label)} {best.probability:.1%}" if best else "no answer"
        failure = f'<div class="refused">{escape(answer.failure)}</div>' if answer.failure else ""
        rows.append(
            f"<tr><td>{escape(answer.model.name)}</td><td>{escape(answer.model.version)}</td>"
            f"<td>{says}{failure}</td><td><code>{escape(answer.model.archive_sha256[:16])}</code></td></tr>"
        )
    head = "<tr><th>Model</th><th>Version</th><th>Says</th><th>Archive SHA-256</th></tr>"
    picture = markup.figure(_png(image), "The photo")
    table = f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'
    return f'<section class="card"><div class="asked">{picture}{table}</div></section>'


def _probabilities(answers: Sequence[Answer], top_k: int) -> str:
    rows = []
    for label in compared(answers, top_k):
        cells = []
        for place, answer in enumerate(answers):
            share, more = answer.probability(label), difference(answer, answers[0], label)
            if share is None:
                cells.append('<td class="number muted">-</td>')
                continue
            first = " top" if answer.predictions[0].label == label else ""
            shift = f' <span class="muted">{points(more)}</span>' if place and more is not None else ""
            cells.append(f'<td class="number{first}">{share:.1%}{shift}{markup.bar(share)}</td>')
        rows.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    if not rows:
        return ""
    names = titles(answers)
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in names)
    note = (
        f'<p class="muted">Behind each probability: percentage points more or less than {escape(names[0])}.</p>'
        if len(answers) > 1
        else ""
    )
    return (
        f'<section class="card"><h2>Probabilities</h2>{note}<div class="scroll"><table class="versions">'
        f"<tr><th>Class</th>{head}</tr>{''.join(rows)}</table></div></section>"
    )


def _maps(image: NDArray[np.uint8], answers: Sequence[Answer], target: str) -> str:
    """What speaks for one class in each model."""
    found = {
        place: attribution
        for place, answer in enumerate(answers)
        for attribution in answer.attributions
        if attribution.label == target
    }
    if not found:
        return ""
    # Numbers of different methods are of different kinds.
    scales = {
        method: Scale.shared([other.grid for other in found.values() if other.method == method])
        for method in dict.fromkeys(attribution.method for attribution in found.values())
    }
    cells = []
    for place, (answer, name) in enumerate(zip(answers, titles(answers), strict=True)):
        share, more = answer.probability(target), difference(answer, answers[0], target)
        unknown = "does not know the class" if answer.predictions else "no answer"
        says = unknown if share is None else f"{target} {share:.1%}"
        if place and more is not None:
            says += f" ({points(more)})"
        if place in found:
            map_ = found[place]
            picture = markup.figure(_png(np.asarray(draw_overlay(image, map_, scales[map_.method]))), f"Map of {name}")
            says += f" · {map_.method}"
            notes = f"largest value {float(map_.grid.max()):.3g} · {faithfulness_note(map_)}"
            below = f'<p class="muted">{escape(notes)}</p>'
        else:
            picture = f'<div class="refused">{escape(answer.failure or "no map of this class")}</div>'
            below = ""
        cells.append(f'<div><h3>{escape(name)}</h3><p class="muted">{escape(says)}</p>{picture}{below}</div>')
    bars = "".join(_bar(method, scale) for method, scale in scales.items())
    return (
        f'<section class="card"><h2>What speaks for {escape(target)}</h2>{bars}'
        f'<div class="maps">{"".join(cells)}</div>{_concepts(answers, found)}</section>'
    )


def _bar(method: str, scale: Scale) -> str:
    """The colours of a scale with the values at its ends."""
    steps = colors.apply(scale.table, np.linspace(0, 1, 21)).astype(int).tolist()
    stops = ", ".join(colors.css((red, green, blue)) for red, green, blue in steps)
    low, high = ("<" if scale.clipped and scale.signed else "", ">" if scale.clipped else "")
    words = "against / for" if scale.signed else "relevance"
    return (
        f'<div class="scale">{escape(method)}: {words} {escape(low)}{scale.low:.3g}'
        f'<span style="background:linear-gradient(to right, {stops})"></span>{escape(high)}{scale.high:.3g}</div>'
    )


def _concepts(answers: Sequence[Answer], found: dict[int, Attribution]) -> str:
    """How much each node of the graph speaks for the class, where a graph was given."""
    nodes = {concept.node: None for map_ in found.values() for concept in map_.concepts}
    if not nodes:
        return ""
    rows = []
    for node in nodes:
        cells = []
        for place in range(len(answers)):
            said = [concept for concept in found[place].concepts if concept.node == node] if place in found else []
            cells.append(
                f'<td class="number">{said[0].score:.2f}{markup.bar(said[0].score)}</td>'
                if said
                else '<td class="number muted">-</td>'
            )
        rows.append(f"<tr><td>{escape(node.name)}</td><td>{node.kind}</td>{''.join(cells)}</tr>")
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in titles(answers))
    return (
        "<details open><summary>Concepts: the score of each node of the graph, comparable inside one map</summary>"
        f'<div class="scroll"><table class="versions"><tr><th>Node</th><th>Kind</th>{head}</tr>{"".join(rows)}</table>'
        "</div></details>"
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    shown = Image.fromarray(picture)
    shown.thumbnail((440, 440))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return buffer.getvalue()
