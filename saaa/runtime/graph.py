"""A classifier as one graph: prediction and attribution of one image, as an archive keeps it.

Inputs are `PIXELS`, uint8 (1, S, S, 3), and for each class to explain `target_of(turn)`, int64 (1,), -1 for the most
probable. Outputs are `LOGITS` and for each method `logits_of(method)`, both float32 (1, classes), and for each class
that is explained `class_of(method, turn)`, int64 (1,), and `map_of(method, turn)`, float32 (1, rows, columns). Who
needs only some outputs cuts the graph there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saaa.archive import GRAPH, GRAPH_WEIGHTS, PARITY, Archive
from saaa.errors import ArchiveError

CLASSES_AT_ONCE = 4
"""The most classes that share one forward; for more, the forward is done again."""
CONFIG_KEY = "runtime"
"""Part of config.json and of the card."""
PIXELS = "pixels"
LOGITS = "logits"


def target_of(turn: int) -> str:
    """The input of a class to explain."""
    return f"target/{turn}"


def logits_of(method: str) -> str:
    """The output of a method's own logits."""
    return f"{method}/logits"


def class_of(method: str, turn: int) -> str:
    """The output of the class that was explained."""
    return f"{method}/class/{turn}"


def map_of(method: str, turn: int) -> str:
    """The output of its map."""
    return f"{method}/map/{turn}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """OpenVINO's two files, and the attribution methods that are inside."""

    xml: bytes
    weights: bytes
    methods: tuple[str, ...]

    @classmethod
    def of(cls, archive: Archive) -> Graph | None:
        """The graph of an archive; None where it has none.

        Raises:
            ArchiveError: config.json does not say what is in it.
        """
        if not archive.graph:
            return None
        try:
            methods = tuple(str(name) for name in archive.config[CONFIG_KEY]["methods"])
        except (KeyError, TypeError) as error:
            raise ArchiveError(f"Archive {archive.name!r} does not say what its graph holds ({error!r}).") from error
        return cls(xml=archive.graph[GRAPH], weights=archive.graph[GRAPH_WEIGHTS], methods=methods)


def with_graph(archive: Archive, graph: Graph, reference: bytes, precisions: Mapping[str, Any]) -> Archive:
    """Add a graph to an archive.

    Args:
        archive: without one.
        graph: of its model.
        reference: `saaa.runtime.parity.Reference.pack`.
        precisions: what was measured of each; "refused" is null or says why it may not be used.
    """
    members = {GRAPH: graph.xml, GRAPH_WEIGHTS: graph.weights, PARITY: reference}
    allowed = [name for name, figures in precisions.items() if figures.get("refused") is None]
    told = {"kind": "openvino", "methods": list(graph.methods), "precisions": allowed}
    return replace(
        archive,
        graph=members,
        config={**archive.config, CONFIG_KEY: told},
        card={**archive.card, CONFIG_KEY: {"openvino": dict(precisions)}},
    )


def allowed_precisions(archive: Archive) -> tuple[str, ...]:
    """The precisions that passed the gate when the archive was made."""
    told = archive.config.get(CONFIG_KEY)
    names = told.get("precisions", ()) if isinstance(told, Mapping) else ()
    return tuple(str(name) for name in names)
