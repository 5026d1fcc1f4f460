"""The captioner that an abstract scene graph guides: encoder, decoder, decoding and vocabulary.

The architecture is ASG2Caption's "role-aware relational graph encoder, memory and flow decoder" (Chen et
al., CVPR 2020, arXiv 2003.00387), which RA3 and SA3 use. It sees the graph's shape (roles, boxes, edges),
never its names.
"""

from saaa.models.captioner.config import CaptionerConfig
from saaa.models.captioner.decoding import Hypotheses, sample, search
from saaa.models.captioner.graphs import GraphBatch, collate
from saaa.models.captioner.model import Captioner, pad_tokens
from saaa.models.captioner.vocabulary import BOS, EOS, SPECIAL, UNK, Vocabulary
from saaa.models.captioner.word_cost import word_cost

__all__ = [
    "BOS",
    "EOS",
    "SPECIAL",
    "UNK",
    "Captioner",
    "CaptionerConfig",
    "GraphBatch",
    "Hypotheses",
    "Vocabulary",
    "collate",
    "pad_tokens",
    "sample",
    "search",
    "word_cost",
]
