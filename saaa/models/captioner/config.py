"""The sizes of the captioner; the published ones are the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields

from saaa.errors import OptionInvalid

RELATION_TYPES = 6
"""Typed edges of a role graph: three pairs, each in both directions."""
ROLES = 3
"""Object, attribute, relationship."""
MAX_WORDS_LIMIT = 50
"""The longest caption that any request may ask for."""
MAX_GUIDING_NODES = 40
"""The largest graph that guides a served caption; no weight depends on it."""


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """Sizes of encoder and decoder.

    Raises:
        OptionInvalid: if a size is not positive or the dropout is outside [0, 1).
    """

    vocabulary_size: int
    """Words with BOS, EOS and UNK."""
    region_size: int = 2048
    """Length of a node's feature."""
    global_size: int = 2048
    """Length of the image's feature."""
    width: int = 512
    """Length of every hidden state, of node memories and of word embeddings."""
    layers: int = 2
    """Relational graph layers."""
    order_rows: int = 20
    """Rows of the order table: an object may have one attribute less."""
    max_nodes: int = 10
    """Graph nodes that guide a caption in training, which cuts larger graphs; at most 40."""
    max_words: int = 25
    """The longest caption that decoding makes unless asked otherwise, end marker not counted."""
    dropout: float = 0.5
    """Of the second LSTM's state before the word scores, in training."""

    def __post_init__(self) -> None:
        least = {"vocabulary_size": 4, "order_rows": 2, "layers": 0}
        for size in fields(self):
            name, value = size.name, getattr(self, size.name)
            if name == "dropout":
                continue
            if value < least.get(name, 1):
                raise OptionInvalid(f"{name} is {value}; give at least {least.get(name, 1)}.", field=name)
        if self.max_words > MAX_WORDS_LIMIT:
            raise OptionInvalid(f"max_words is {self.max_words}; give at most {MAX_WORDS_LIMIT}.", field="max_words")
        if self.max_nodes > MAX_GUIDING_NODES:
            raise OptionInvalid(f"max_nodes is {self.max_nodes}; give at most {MAX_GUIDING_NODES}.", field="max_nodes")
        if self.region_size % 2:
            raise OptionInvalid(
                f"region_size is {self.region_size}; the order table needs an even one.", field="region_size"
            )
        if not 0 <= self.dropout < 1:
            raise OptionInvalid(f"dropout is {self.dropout}; give 0 or more and less than 1.", field="dropout")
