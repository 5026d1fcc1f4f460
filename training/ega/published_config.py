"""Options of the published program's way: `saaa-train ega model.json path.json` and `saaa-train ega prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from saaa.errors import OptionInvalid
from training.ega.config import MAX_TOKENS
from training.options import check

MODEL_TYPE = "rgcn.flow.memory"
"""The published name of this captioner: role-aware relational graph encoder, decoder with flow and memory."""


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """What the published program is told.

    Raises:
        OptionInvalid: another model is asked for, or an option is outside its range.
    """

    model_json: Annotated[Path, tyro.conf.Positional]
    """What the model is and how it is trained, as the published preparation (or `saaa-train ega prepare`) writes it."""
    path_json: Annotated[Path, tyro.conf.Positional]
    """Where the data are, likewise."""
    mtype: Annotated[str, tyro.conf.Positional] = MODEL_TYPE
    """ASG2Caption's third word; there is one model here."""
    is_train: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train on trn and val; without it eval_set is captioned and measured with the best checkpoint."""
    eval_loss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure the validation loss, too; it is measured in any case."""
    eval_set: str = "val_sub"
    """Split to test on: val_sub ("EGA"), val_sub_opt ("EGDD+EGA") or another of path.json."""
    resume_file: Path | None = None
    """With is_train the checkpoint to go on from (last.pt); else the one to test; default: the best."""
    num_workers: int = 0
    """Threads that put batches together ahead."""
    max_attn_len: int | None = None
    """Longest graph; default: model.json's."""
    no_evaluate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Test: write the captions only."""
    outcap_format: int = 0
    """Test: 0 is the best caption; the other formats of the published program are not written here."""
    selfcritic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Without effect, as in the published program."""

    options: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """Options of `saaa-train ega` beside the published ones, such as `explanation_weight: 1`."""
    device: str = "auto"
    """A torch device, such as cuda; "auto" is cuda where there is one."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        if self.mtype != MODEL_TYPE:
            raise OptionInvalid(f"The model type {self.mtype!r} is not known here; {MODEL_TYPE} is.", field="mtype")
        if self.outcap_format != 0:
            raise OptionInvalid(
                f"outcap_format is {self.outcap_format}; only 0, the best caption, is written.", field="outcap_format"
            )
        check("num_workers", self.num_workers, at_least=0)
        check("max_attn_len", self.max_attn_len, at_least=1, at_most=40)
        check("threads", self.threads, above=0)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """For which data, and with which sizes, to write model.json and path.json.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    data_path: Path
    """Folder with annotations/ in the published formats."""
    features: Path | None = None
    """Folder with MP/ and SA/, as `saaa-train features` makes them; default: data_path/features."""
    output_dir: Path
    """Where both files, and later the checkpoints and captions, go."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    global_features: Path | None = None
    """Folder of <set>_ft.npy; default: features/MP."""
    region_features: Path | None = None
    """Folder of <image_id>.jpg.hdf5; default: features/SA."""

    width: int = 512
    """Size of hidden states, node memories and word embeddings."""
    layers: int = 2
    """Relational graph layers."""
    max_nodes: int = 10
    """Longer graphs are cut, relationships first."""
    max_tokens: int = 25
    """Longer captions are cut; BOS and EOS count."""
    batch_size: int = 128
    epochs: int = 100
    lr: float = 2e-4
    """Adam's learning rate."""

    def __post_init__(self) -> None:
        for name in ("width", "batch_size", "epochs"):
            check(name, getattr(self, name), at_least=1)
        check("layers", self.layers, at_least=0)
        check("max_nodes", self.max_nodes, at_least=1, at_most=40)
        check("max_tokens", self.max_tokens, at_least=3, at_most=MAX_TOKENS)
        check("lr", self.lr, above=0)
