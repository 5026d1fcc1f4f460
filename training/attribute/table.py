"""The index as a table: one row a map, and one for each item without a map."""

from __future__ import annotations

import csv
from typing import Any, TextIO

COLUMNS = (
    *("item", "file", "region", "sha256", "width", "height", "label", "predicted", "predicted_probability", "caption"),
    *("kind", "target", "name", "probability", "method", "completeness_gap", "deletion_drop"),
    *("top_concept", "top_concept_score", "shard", "data", "rows", "columns", "error_reason", "error"),
)


class Table:
    """Writes index.csv.

    Args:
        file: where to.
    """

    def __init__(self, file: TextIO) -> None:
        self._rows = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        self._rows.writeheader()

    def add(self, record: dict[str, Any]) -> None:
        """Add the rows of one line of the index."""
        common = dict(record)
        if record["error"] is not None:
            common |= {"error_reason": record["error"]["reason"], "error": record["error"]["message"]}
        if record.get("predictions"):
            best = record["predictions"][0]
            common |= {"predicted": best["class"], "predicted_probability": best["probability"]}
        if record.get("caption"):
            common["caption"] = " ".join(record["caption"]["words"])
        for made in record["maps"] or [{}]:
            row = {**common, **made}
            if best := top_concepts(made, 1):
                row |= {"top_concept": best[0]["name"], "top_concept_score": best[0].get("weight", best[0]["score"])}
            self._rows.writerow({key: value for key, value in row.items() if value is not None})


def top_concepts(made: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The objects with the highest scores; or, in a caption, the nodes with most weight.

    Attributes and relationships share the regions of objects, so only weights tell them apart.
    """
    concepts = made.get("concepts", [])
    if any("weight" in concept for concept in concepts):
        return sorted(concepts, key=lambda c: -c.get("weight", float("-inf")))[:count]
    return sorted((c for c in concepts if c["kind"] == "object"), key=lambda c: -c["score"])[:count]
