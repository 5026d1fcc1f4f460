"""Write what an analysis says into a folder: JSON, pictures and one HTML page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from saaa.client.results import Analysis
from saaa.errors import ImageRejected
from saaa.images import decode
from saaa.report.graph import draw_graph
from saaa.report.heatmap import draw_attribution
from saaa.report.page import Card, page

PHOTOS_SHOWN = 200
"""More on one page is more than a browser, or a reader, takes in."""


@dataclass(frozen=True, kw_only=True)
class ReportEntry:
    """One photo with what came of it: an analysis or an error."""

    file: str
    """Name or path as the reader should see it; its stem names the files written."""
    image_bytes: bytes
    """The encoded picture that was sent."""
    analysis: Analysis | None = None
    error: str | Exception | None = None
    """Why there is no analysis."""

    def __post_init__(self) -> None:
        if (self.analysis is None) == (self.error is None):
            raise ValueError(f"{self.file}: a report entry has either an analysis or an error")


def write_report(
    out_dir: str | Path, entries: Iterable[ReportEntry], *, title: str = "Image analysis", shown: int = PHOTOS_SHOWN
) -> Path:
    """Write the files of each photo, and `report.html` for all.

    A photo `<stem>.jpg` gives `<stem>.json` and, when analysed, `<stem>.attribution.<k>.png` (k from 0) and
    `<stem>.graph.png`. Stems that occur more than once get "-2", "-3" and so on; files of the same names are
    overwritten. The page embeds its pictures and needs no other file and no network.

    Args:
        out_dir: folder; made when absent.
        entries: the photos, in the order of the page; taken one by one.
        title: heading of the page.
        shown: most photos on the page, which says so when there are more; the files are written for all.

    Returns:
        The path of `report.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    stems, cards, count = Stems(), list[Card](), 0
    for entry in entries:
        card = _write_entry(out, stems.unique(entry.file), entry)
        count += 1
        if count <= shown:
            cards.append(card)
    heading = title if count <= shown else f"{title}: the first {shown} of {count} photos"
    target = out / "report.html"
    target.write_text(page(cards, title=heading), encoding="utf-8")
    return target


class Stems:
    """File stems, no two alike even ignoring case, none a shared file's."""

    def __init__(self) -> None:
        self._taken = {"report", "result"}

    def unique(self, file: str) -> str:
        """A stem for `file` that was not given before."""
        stem = re.sub(r'[\x00-\x1f<>:"|?*]', "_", Path(file.replace("\\", "/")).stem)[:100] or "photo"
        name, number = stem, 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name.casefold())
        return name


def _write_entry(out: Path, name: str, entry: ReportEntry) -> Card:
    analysis = entry.analysis
    refusal = {"file": entry.file, "error": str(entry.error)}
    answer = refusal if analysis is None else analysis.to_json(file=entry.file)
    (out / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    card = Card(file=entry.file, analysis=analysis, error=entry.error)
    if analysis is None:
        return card
    try:
        image = decode(entry.image_bytes)
    except ImageRejected as error:
        return Card(file=entry.file, analysis=analysis, error=f"The picture cannot be shown: {error.message}")
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((192, 192))
    attributions = [
        _save(out / f"{name}.attribution.{k}.png", draw_attribution(image, attribution))
        for k, attribution in enumerate(analysis.attributions)
    ]
    graph = _save(out / f"{name}.graph.png", draw_graph(image, analysis)) if analysis.graph else None
    return Card(
        file=entry.file,
        analysis=analysis,
        thumbnail=_png(thumbnail),
        attributions=tuple(attributions),
        graph=graph,
    )


def _save(path: Path, picture: Image.Image) -> bytes:
    data = _png(picture)
    path.write_bytes(data)
    return data


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
