"""report.json and report.html of the loop: what the retraining changed, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from saaa import archive as archives
from saaa.difficulty import Concept
from saaa.errors import ImageRejected
from saaa.images import decode
from saaa.report import markup
from saaa.work import ModelInfo
from training.debugging.comparison import Change, Comparison, compare
from training.debugging.config import DebugTrainConfig
from training.debugging.debug_set import DebugSet, Item
from training.debugging.examples import Example, choose, explain, thumbnail
from training.debugging.pool import look
from training.debugging.prompts import TOKEN
from training.debugging.slices import find_slices
from training.files import whole, write_json

REPORT, PAGE = "report.json", "report.html"
CLASSES_SHOWN, PICTURES_SHOWN, CONCEPTS_SHOWN = 12, 6, 8
"""Of the debug set the classes, and of each the pictures, and of each class the concepts on the page."""
PICTURE = 160

_STYLE = """
main, header.top { max-width: 1240px; }
.pair { display: grid; gap: 3px; min-width: 140px; }
.pair .before .track > span { background: var(--muted); }
.good { color: #1a7f4b; font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.note { border-left: 4px solid var(--bar); padding: 8px 14px; margin: 16px 0 0; background: var(--track); }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 10px; margin: 8px 0 18px; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 220px)); gap: 10px; margin: 10px 0 22px; }
figcaption { padding: 4px 8px; font-size: 13px; color: #606874; overflow-wrap: anywhere; }
td, th { overflow-wrap: anywhere; }
.card > h2 { margin-bottom: 12px; } .card > p { margin: 12px 0; } .card > h3 { margin-top: 16px; }
.scroll { overflow-x: auto; }
@media (prefers-color-scheme: dark) { .good { color: #6fcf97; } }
"""
_VERDICTS = {"confounded": "bad", "valid": "good", "undecided": "muted"}


def report(
    config: DebugTrainConfig,
    *,
    before: Path,
    after: Path,
    debug_set: DebugSet,
    concepts: Mapping[str, Sequence[Concept]] | None,
) -> dict[str, Any]:
    """Measure both models on the test images, write report.json and report.html, print a summary.

    Args:
        config: the loop's options.
        before, after: the archives.
        debug_set: what the second was trained on beside what the first was.
        concepts: of each class what people said; None where nobody was asked.

    Returns:
        The content of report.json.

    Raises:
        DataError: the test images are unusable, or a file cannot be written.
    """
    test = config.data / "test"
    found = tuple(look(model, test, threads=config.threads) for model in (before, after))
    slices = find_slices(config.data, "test")
    comparison = compare(found[0], found[1], slices)
    chosen = choose(found[0], found[1], slices, config.examples)
    examples = explain(
        (before, after), (found[0], found[1]), chosen, slices, method=config.method, threads=config.threads
    )
    folder = config.out / config.folder
    models = archives.info(before), archives.info(after)
    content: dict[str, Any] = {
        "strategy": config.strategy,
        "budget": config.budget,
        "annotator": _annotator(config),
        "models": {
            when: {"name": model.name, "version": model.version, "digest": model.digest, "archive": str(path)}
            for when, model, path in zip(("before", "after"), models, (before, after), strict=True)
        },
        "test": comparison.to_json(),
        "answers": _answers(folder / "annotations" / "report.json") if concepts is not None else None,
        "concepts": None
        if concepts is None
        else {name: [concept.to_json() for concept in own] for name, own in concepts.items()},
        "debug_set": {
            "folder": str(debug_set.folder),
            "images": debug_set.counts,
            "told": list(debug_set.told),
        },
        "examples": [
            {
                "image": example.name,
                "class": example.label,
                "slice": example.slice or None,
                "before": {"class": example.before[0], "probability": round(example.before[1], 6)},
                "after": {"class": example.after[0], "probability": round(example.after[1], 6)},
            }
            for example in examples
        ],
    }
    write_json(folder / REPORT, content)
    with whole(folder / PAGE) as aside:
        aside.write_text(_page(config, content, models, comparison, concepts, debug_set, examples), encoding="utf-8")
    print(summary(comparison))
    print(f"{folder}: {REPORT}, {PAGE}; {after} is {models[1].name} {models[1].version}")
    return content


def summary(comparison: Comparison) -> str:
    """Put a comparison into a few lines for the terminal."""
    lines = [_line("test", comparison.original)]
    lines += [_line(f"test, {name}", change) for name, change in comparison.slices.items()]
    if comparison.failures is not None:
        lines.append(_line("test images that the base got wrong", comparison.failures))
    return "\n".join(lines)


def _line(name: str, change: Change) -> str:
    low, high = change.interval
    return (
        f"{name}: accuracy {change.before:.3f} -> {change.after:.3f} ({change.change:+.3f}, interval {low:+.3f} to "
        f"{high:+.3f}; {change.images} images)"
    )


def _annotator(config: DebugTrainConfig) -> dict[str, Any] | None:
    if config.annotator == "simulated":
        return {"kind": "simulated", "noise": config.noise}
    return {"kind": "people", "noise": None} if config.answers else None


def _answers(path: Path) -> dict[str, Any]:
    """The counts of the import."""
    counts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: counts[name] for name in ("records", "ratings", "images", "repaired", "set_aside")}


def _page(
    config: DebugTrainConfig,
    content: Mapping[str, Any],
    models: tuple[ModelInfo, ModelInfo],
    comparison: Comparison,
    concepts: Mapping[str, Sequence[Concept]] | None,
    debug_set: DebugSet,
    examples: Sequence[Example],
) -> str:
    facts = (
        f"strategy {config.strategy} · {len(debug_set.items)} debug images, {config.budget} a class · "
        f"{models[0].name} {models[0].version} → {models[1].version} · test images: {comparison.original.images}"
    )
    note = ""
    if config.annotator == "simulated":
        note = f"<p class=\"note\">The answers are a simulated annotator's (noise {config.noise:g}), not people's.</p>"
    parts = [
        _accuracy(comparison),
        _classes(comparison),
        "" if concepts is None else _concepts(concepts, content["answers"], content["annotator"]),
        _debug_set(debug_set),
        _examples(examples),
        _provenance(models),
    ]
    return markup.document(
        f"Data debugging of {config.data.name}",
        header=f'<p class="muted">{escape(facts)}</p>{note}',
        main="\n".join(part for part in parts if part),
        footer="Both models took the same steps from the same start; the second saw the debug set among its images. "
        "Intervals are 95 %, of the change on the same images (Newcombe's, method 10).",
        style=_STYLE,
    )


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th class="number">{name[1:]}</th>' if name[:1] == "#" else f"<th>{name}</th>" for name in head)
    return f'<div class="scroll"><table><tr>{cells}</tr>{"".join(rows)}</table></div>'


_CHANGE = ("#Images", "#Before", "#After", "", "#Change", "#Interval")


def _row(name: str, change: Change) -> str:
    """A change as a row under `_CHANGE`, with its name before."""
    low, high = change.interval
    look = "good" if low > 0 else "bad" if high < 0 else ""
    bars = (
        f'<div class="pair"><div class="before">{markup.bar(change.before)}</div>'
        f"<div>{markup.bar(change.after)}</div></div>"
    )
    cells = (f"{change.images}", f"{change.before:.1%}", f"{change.after:.1%}")
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return (
        f'<tr><td>{name}</td>{numbers}<td>{bars}</td><td class="number {look}">{100 * change.change:+.1f}</td>'
        f'<td class="number">{100 * low:+.1f} to {100 * high:+.1f}</td></tr>'
    )


def _accuracy(comparison: Comparison) -> str:
    rows = [_row("<b>all test images</b>", comparison.original)]
    rows += [_row(f"slice: {escape(name)}", change) for name, change in comparison.slices.items()]
    if comparison.failures is not None:
        rows.append(_row("the base got them wrong", comparison.failures))
    if comparison.successes is not None:
        rows.append(_row("the base got them right", comparison.successes))
    notes = [
        "Grey is before, blue after. What the base got wrong was 0 % right before by definition, and another training "
        "alone repairs some of it: compare strategies with s-random."
    ]
    if (gap := comparison.gap) is not None:
        notes.append(
            "Aligned images show their class with its own cue, counter images with another class's; the difference is "
            f"what the confound costs: {100 * gap[0]:.1f} points before, {100 * gap[1]:.1f} after."
        )
    table = _table(("Accuracy on", *_CHANGE), rows)
    return f'<section class="card"><h2>Accuracy on test</h2>{table}<p class="muted">{" ".join(notes)}</p></section>'


def _classes(comparison: Comparison) -> str:
    rows = []
    for name, change in comparison.classes.items():
        rows.append(_row(f"<b>{escape(name)}</b>", change))
        own = ((part, of[name]) for part, of in comparison.by_class.items() if name in of)
        rows += [_row(f'<span class="muted">{escape(part)}</span>', of) for part, of in own]
    return f'<section class="card"><h2>By class</h2>{_table(("Class", *_CHANGE), rows)}</section>'


def _concepts(
    concepts: Mapping[str, Sequence[Concept]], answers: Mapping[str, int], annotator: Mapping[str, Any]
) -> str:
    said = "a simulated annotator says" if annotator["kind"] == "simulated" else "people say"
    rows = []
    for name, own in concepts.items():
        for i, concept in enumerate(own[:CONCEPTS_SHOWN]):
            low, high = concept.interval
            rows.append(
                f"<tr><td>{f'<b>{escape(name)}</b>' if i == 0 else ''}</td><td>{escape(concept.name)}</td>"
                f'<td>{escape(concept.kind)}</td><td class="{_VERDICTS[concept.verdict]}">{concept.verdict}</td>'
                f'<td class="number">{concept.support}</td><td class="number">{concept.mean:.2f}</td>'
                f'<td>{markup.bar(concept.irrelevant)}</td><td class="number">{concept.irrelevant:.0%}</td>'
                f'<td class="number">{low:.0%} to {high:.0%}</td></tr>'
            )
        if not own:
            rows.append(
                f'<tr><td><b>{escape(name)}</b></td><td colspan="8" class="muted">nothing that counts</td></tr>'
            )
        if (more := len(own) - CONCEPTS_SHOWN) > 0:
            rows.append(f'<tr><td></td><td colspan="8" class="muted">{more} more in {REPORT}</td></tr>')
    head = ("Class", "Concept", "Kind", "Verdict", "#Ratings", "#Mean", "Not relevant", "", "#Interval")
    told = (
        f"{answers['ratings']} ratings of {answers['images']} images, from {answers['records']} records; "
        f"{answers['repaired']} were repaired, {answers['set_aside']} answers set aside."
    )
    return (
        f'<section class="card"><h2>What the base looks at, and what {said} of it</h2>{_table(head, rows)}'
        f'<p class="muted">{told} A concept is confounded (used by the model, not showing the class) or valid where '
        f"the whole interval lies on one side of one half.</p></section>"
    )


def _debug_set(debug_set: DebugSet) -> str:
    by_class: dict[str, list[Item]] = {}
    for item in debug_set.items:
        by_class.setdefault(item.label, []).append(item)
    strips = []
    for name, items in list(by_class.items())[:CLASSES_SHOWN]:
        pictures = "".join(_thumbnail(debug_set, item) for item in items[:PICTURES_SHOWN])
        strips.append(f'<h3>{escape(name)} · {len(items)}</h3><div class="strip">{pictures}</div>')
    if (more := len(by_class) - CLASSES_SHOWN) > 0:
        strips.append(f'<p class="muted">{more} more classes are in the folder.</p>')
    told = "".join(f"<li>{escape(line)}</li>" for line in debug_set.told)
    if any(TOKEN in item.prompt for item in debug_set.items):
        strips.append('<p class="muted">&lt;class&gt; is what the generator learned of the class\'s images.</p>')
    return (
        f'<section class="card"><h2>The debug set</h2>{f"<ul>{told}</ul>" if told else ""}{"".join(strips)}</section>'
    )


def _thumbnail(debug_set: DebugSet, item: Item) -> str:
    words = item.prompt.replace(TOKEN, f"<{item.label}>") or item.source
    if item.negative:
        words += f" · without {', '.join(item.negative)}"
    try:
        picture = thumbnail(decode((debug_set.images / item.file).read_bytes()), PICTURE)
    except (OSError, ImageRejected):
        return f'<p class="refused">{escape(item.file)} cannot be read.</p>'
    return (
        f'<figure><img alt="{escape(item.label)}" src="{markup.data_uri(picture)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    rows = []
    for example in examples:
        shown = (("picture", example.photo), *example.maps)
        figures = "".join(
            f'<figure><img alt="{escape(what)}" src="{markup.data_uri(picture)}">'
            f"<figcaption>{escape(what)}</figcaption></figure>"
            for what, picture in shown
        )
        slice_ = f" · {escape(example.slice)}" if example.slice else ""
        rows.append(
            f'<p><b>{escape(example.name)}</b><span class="muted">{slice_}</span><br>'
            f"{escape(example.label)}: before {_said(example.before, example.label)}, "
            f'after {_said(example.after, example.label)}</p><div class="maps">{figures}</div>'
        )
    return (
        '<section class="card"><h2>Where the models look</h2><p class="muted">Test images that the retraining changed; '
        "maps for the class that each model predicted, and for the true class.</p>"
        f"{''.join(rows)}</section>"
    )


def _said(predicted: tuple[str, float], label: str) -> str:
    name, probability = predicted
    return f'<span class="{"good" if name == label else "bad"}">{escape(name)} {probability:.0%}</span>'


def _provenance(models: tuple[ModelInfo, ModelInfo]) -> str:
    rows = "".join(
        f"<tr><td>{when}</td><td>{escape(model.name)}</td><td>{escape(model.version)}</td>"
        f"<td><code>{escape(model.digest)}</code></td></tr>"
        for when, model in zip(("before", "after"), models, strict=True)
    )
    table = f"<table><tr><th></th><th>Name</th><th>Version</th><th>Archive SHA-256</th></tr>{rows}</table>"
    return f'<section class="card"><h2>Models</h2>{table}</section>'
