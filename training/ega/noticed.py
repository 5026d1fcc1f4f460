"""What of regions and captions can be used in part only, counted and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from saaa.models.captioner.vocabulary import UNK, Vocabulary
from training.ega.published import Region

NAMED = 20
"""The most frequent unknown words that are listed."""


def read_text(regions: Sequence[Region], vocabulary: Vocabulary, max_tokens: int) -> dict[str, Any]:
    """Count the captions that are cut to `max_tokens` (BOS and EOS count) and the words outside the vocabulary."""
    captions = [caption.split() for region in regions for caption in region.captions]
    said = Counter(word for words in captions for word in words)
    unknown = Counter({word: count for word, count in said.items() if vocabulary.ids.get(word, UNK) == UNK})
    return {
        "max_tokens": max_tokens,
        "captions_cut": sum(len(words) + 2 > max_tokens for words in captions),
        "words": said.total(),
        "unknown_words": unknown.total(),
        "unknown_most_frequent": dict(unknown.most_common(NAMED)),
    }


def cut_graphs(regions: Sequence[Region], max_nodes: int) -> dict[str, Any]:
    """Count the graphs that are cut to `max_nodes`."""
    return {"max_nodes": max_nodes, "graphs_cut": sum(len(r.graph.nodes()) > max_nodes for r in regions)}


def noticed(report: Mapping[str, Any]) -> list[str]:
    """What the counts of `read_text`, `cut_graphs` and `saaa-train pack` say, a line for each that is not 0."""
    lines = [
        f"{report[key]} {what}"
        for key, what in (
            ("graphs_cut", f"graphs cut to {report['max_nodes']} nodes"),
            ("captions_cut", f"captions cut to {report['max_tokens']} tokens"),
            ("boxes_inexact", "regions with a box matched inexactly"),
        )
        if report.get(key)
    ]
    if report["unknown_words"]:
        most = ", ".join(list(report["unknown_most_frequent"])[:5])
        lines.append(f"{report['unknown_words']} of {report['words']} words unknown ({most})")
    return lines
