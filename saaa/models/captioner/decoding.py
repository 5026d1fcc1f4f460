"""From a trained captioner to words: greedy search (width 1) and beam search, one batched program for
both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saaa.errors import OptionInvalid
from saaa.models.captioner.decoder import Decoder, Guide, State
from saaa.models.captioner.vocabulary import BOS, EOS


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """The K best captions of each of B images, best first; T is the most tokens among them."""

    tokens: Tensor
    """int64 (B, K, T): word ids, then EOS to the end."""
    lengths: Tensor
    """int64 (B, K): words, EOS not counted."""
    log_probabilities: Tensor
    """(B, K, T), of each token; 0 after the first EOS."""
    attention: Tensor
    """(B, K, T, N): the node weights with which each token was chosen."""
    scores: Tensor
    """(B, K): log-probability of the whole caption, EOS included, in descending order; minus infinity where
    there are fewer than K different captions."""


@torch.inference_mode()
def search(decoder: Decoder, state: State, guide: Guide, *, width: int, max_words: int) -> Hypotheses:
    """The `width` best captions that beam search finds; deterministic.

    Every caption ends with EOS: after `max_words` words only EOS may follow, so that its score is the
    probability of the whole caption. One slot of the beam always holds the greedy caption's beginning, so
    the best score is never below the greedy one's; with width 1 the search is greedy search.

    Args:
        decoder: in evaluation mode.
        state, guide: of `Captioner.begin`, B rows.
        width: hypotheses kept, at least 1.
        max_words: at least 1.

    Raises:
        OptionInvalid: if `width` or `max_words` is below 1.
    """
    if width < 1 or max_words < 1:
        raise OptionInvalid(f"Beam width {width} and max_words {max_words} must be at least 1.")
    images, nodes = guide.mask.shape
    device = guide.mask.device
    vocabulary = decoder.words.num_embeddings
    first_row = torch.arange(images, device=device)[:, None] * width
    spread = torch.arange(images, device=device).repeat_interleave(width)
    state, guide = state.rows(spread), guide.rows(spread)
    weights = decoder.weights()

    # All hypotheses of an image begin alike, so only the first may grow at first.
    scores = torch.full((images, width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    greedy = torch.zeros(images, dtype=torch.int64, device=device)
    ended = torch.zeros(images, width, dtype=torch.bool, device=device)
    last = torch.full((images * width,), BOS, device=device)
    tokens = torch.empty(images, width, 0, dtype=torch.int64, device=device)
    chances = torch.empty(images, width, 0, device=device)
    attention = torch.empty(images, width, 0, nodes, device=device)
    only_end = torch.full((vocabulary,), -torch.inf, device=device)
    only_end[EOS] = 0.0

    for step in range(max_words + 1):
        state = decoder.step(state, guide, decoder.word_gates(last), weights)
        grown = decoder.log_probabilities(state.hidden2).view(images, width, vocabulary)
        if step == max_words:
            grown = grown + only_end
        grown = torch.where(ended[..., None], only_end, grown)  # an ended caption goes on as itself, at no cost
        total = (scores[..., None] + grown).flatten(1)

        best = grown[torch.arange(images, device=device), greedy].argmax(-1) + greedy * vocabulary
        chosen = total.topk(width, dim=1).indices
        absent = ~(chosen == best[:, None]).any(1)
        chosen[absent, -1] = best[absent]
        greedy = (chosen == best[:, None]).int().argmax(1)

        scores = total.gather(1, chosen)
        parent, word = chosen // vocabulary, chosen % vocabulary
        rows = (first_row + parent).flatten()
        state = state.rows(rows)
        past_ended = ended.flatten()[rows].view(images, width)
        gain = grown.flatten(1).gather(1, chosen)
        tokens = torch.cat([tokens.flatten(0, 1)[rows].view(images, width, step), word[..., None]], -1)
        chances = torch.cat([chances.flatten(0, 1)[rows].view(images, width, step), gain[..., None]], -1)
        weight = state.attention.float().view(images, width, 1, nodes)
        attention = torch.cat([attention.flatten(0, 1)[rows].view(images, width, step, nodes), weight], 2)
        ended = past_ended | (word == EOS)
        last = word.flatten()
        if bool((ended | scores.isinf()).all()):
            break

    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return Hypotheses(
        tokens=tokens.gather(1, order[..., None].expand_as(tokens)),
        lengths=(tokens != EOS).sum(-1).gather(1, order),
        log_probabilities=chances.gather(1, order[..., None].expand_as(chances)),
        attention=attention.gather(1, order[..., None, None].expand_as(attention)),
        scores=scores,
    )
