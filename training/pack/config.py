"""Options of `saaa-train pack`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.ega.config import MAX_TOKENS
from training.options import check


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """What to pack.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    data_path: Path
    """Folder with annotations/ in the published formats."""
    features: Path
    """Folder with the published features: MP/ and SA/, as `saaa-train features` makes them."""
    output_dir: Path
    """Folder for the cache, one folder a split; a split that is there is replaced."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    global_features: Path | None = None
    """Folder of <set>_ft.npy; default: features/MP."""
    region_features: Path | None = None
    """Folder of <image_id>.jpg.hdf5; default: features/SA."""
    splits: tuple[str, ...] = ()
    """Only these, such as trn val; default: all."""
    max_nodes: int = 10
    """Longer graphs are cut, relationships first."""
    max_tokens: int = 25
    """Longer captions are cut; BOS and EOS count."""
    box_tolerance: int = 0
    """Take the nearest stored box when no side is further off than so many pixels; 0 wants the very box. Detectors clip
    and round boxes."""

    def __post_init__(self) -> None:
        check("max_nodes", self.max_nodes, at_least=1, at_most=250)
        check("max_tokens", self.max_tokens, at_least=3, at_most=MAX_TOKENS)
        check("box_tolerance", self.box_tolerance, at_least=0)
