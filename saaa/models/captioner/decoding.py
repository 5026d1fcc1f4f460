"""From a trained captioner to words: greedy search, beam search and sampling, one batched loop for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from saaa.errors import OptionInvalid
from saaa.models.captioner.decoder import Decoder, Guide, State, StepWeights, log_chances
from saaa.models.captioner.vocabulary import BOS, EOS


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """K captions of each of B images, best first; T is the most tokens among them."""

    tokens: Tensor
    """int64 (B, K, T): word ids, then EOS to the end."""
    lengths: Tensor
    """int64 (B, K): words, EOS not counted."""
    log_probabilities: Tensor
    """(B, K, T), of each token; 0 after the first EOS."""
    attention: Tensor
    """(B, K, T, N): the node weights with which each token was chosen; 0 after the first EOS."""
    scores: Tensor
    """(B, K): log-probability of the whole caption, EOS included; minus infinity where there are fewer than K
    captions."""


_Choice = tuple[Tensor, Tensor, Tensor]
"""Of A images and C continuations each, int64 (A, C): the column that goes on, its next word, its mark."""
_Choose = Callable[[int, Tensor, Tensor, Tensor, Tensor], _Choice]
"""Step, scores (A, W), log-probabilities of words (A, W, V), marks (A, W) and free places (A,) to a choice."""


Advance = Callable[[State, Guide, Tensor], tuple[State, Tensor]]
"""State, guide and last words (R,) to the next state and the next word's scores (R, vocabulary), which need to last
until the next call only and may be written into."""


def search(
    decoder: Decoder,
    state: State,
    guide: Guide,
    *,
    width: int,
    max_words: int,
    length_penalty: float = 0.0,
    weights: StepWeights | None = None,
    advance: Advance | None = None,
) -> Hypotheses:
    """The `width` captions that beam search finds; deterministic.

    A caption that ends leaves the beam, which is then narrower by one (Sutskever et al. 2014): every image gets `width`
    captions, and an image whose captions have all ended leaves the batch. Every caption ends with EOS: after
    `max_words` words only EOS may follow, so that its score is the probability of the whole caption.

    One place of the beam always holds the greedy caption's beginning. So width 1 is greedy search, and the best caption
    is never worse than the greedy one by what orders them, with a length penalty as without. (A wider beam may still do
    worse than a narrower one.)

    Args:
        decoder: in evaluation mode.
        state, guide: of `Captioner.begin`, B rows.
        width: captions kept, at least 1.
        max_words: at least 1.
        length_penalty: captions are ordered by score / ((5 + tokens) / 6) ** length_penalty, EOS counted among the
            tokens (GNMT, Wu et al. 2016, arXiv 1609.08144, equation 14); 0 orders by score, more favours longer ones.
        weights: `decoder.weights()`, where they were made before.
        advance: takes the decoder's steps in its place.

    Raises:
        OptionInvalid: if `width` or `max_words` is below 1.
    """
    if width < 1:
        raise OptionInvalid(f"Beam width {width} must be at least 1.")
    mark = torch.ones_like(guide.mask[:, :1], dtype=torch.int64)  # 1 is the greedy caption's beginning
    return _decode(decoder, state, guide, _best, mark, width, max_words, length_penalty, weights, advance)


def sample(
    decoder: Decoder,
    state: State,
    guide: Guide,
    *,
    count: int,
    max_words: int,
    seeds: Sequence[int],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    length_penalty: float = 0.0,
    weights: StepWeights | None = None,
    advance: Advance | None = None,
) -> Hypotheses:
    """`count` captions drawn word by word and independently, so that some may be equal; ordered as `search` does.

    Scores and log-probabilities are the captioner's own, as if nothing had been drawn. Each image has a generator of
    its own: what it is batched with changes nothing.

    Args:
        decoder, state, guide, max_words, length_penalty, weights, advance: as for `search`.
        count: captions an image, at least 1.
        seeds: one an image, 0 to 2**64 - 1.
        temperature: divides the log-probabilities, above 0; less than 1 prefers likely words more.
        top_k: draw among the so many likeliest words, at least 1; None is all.
        top_p: then among the fewest likeliest words that have this share of the probability (nucleus sampling, Holtzman
            et al. 2020, arXiv 1904.09751), above 0, at most 1.

    Raises:
        OptionInvalid: an option outside its range, or not one seed an image.
    """
    images = len(guide.mask)
    in_range = count >= 1 and 0 < temperature < torch.inf and (top_k is None or top_k >= 1) and 0 < top_p <= 1
    if not in_range or len(seeds) != images:
        raise OptionInvalid(
            f"Sampling needs count ({count}) and top_k ({top_k}) at least 1, temperature ({temperature}) above 0, "
            f"top_p ({top_p}) above 0 and at most 1, and one seed ({len(seeds)}) an image ({images})."
        )
    device = guide.mask.device
    numbers = torch.stack(
        [
            torch.rand(count, max(0, max_words) + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    ).to(device)
    numbers = numbers.flatten(0, 1)

    def draw(step: int, scores: Tensor, chances: Tensor, mark: Tensor, free: Tensor) -> _Choice:
        if step == 0:  # all captions of an image begin alike
            mark = mark + torch.arange(count, device=device)
            chances = chances.expand(-1, count, -1)
            parent = torch.zeros_like(mark)
        else:
            parent = torch.arange(mark.shape[1], device=device).expand_as(mark)
        likely, words = (chances / temperature).sort(dim=-1, descending=True, stable=True)
        chance = torch.softmax(likely[..., :top_k].double(), dim=-1)
        before = chance.cumsum(-1) - chance
        edges = chance.masked_fill(before >= top_p, 0.0).cumsum(-1)
        place = torch.searchsorted(edges, numbers[mark, step, None] * edges[..., -1:], right=True)
        return parent, words.gather(-1, place)[..., 0], mark

    mark = torch.arange(images, device=device)[:, None] * count  # the row of its numbers
    return _decode(decoder, state, guide, draw, mark, count, max_words, length_penalty, weights, advance)


def _best(step: int, scores: Tensor, chances: Tensor, mark: Tensor, free: Tensor) -> _Choice:
    """The likeliest continuations, as many as there are free places, the greedy one among them."""
    images, columns, vocabulary = chances.shape
    marked = (mark > 0) & (scores > -torch.inf)
    running, greedy = marked.any(1, keepdim=True), marked.int().argmax(1)
    best = chances[torch.arange(images, device=greedy.device), greedy].argmax(-1) + greedy * vocabulary
    most = min(int(free.max()), columns * vocabulary)
    if most == 1 and bool(running.all()):  # greedy search
        return greedy[:, None], (best % vocabulary)[:, None], torch.ones_like(mark[:, :1])
    chosen = (scores[..., None] + chances).flatten(1).topk(most, dim=1).indices
    last = free.clamp(max=most)[:, None] - 1
    place = torch.arange(most, device=greedy.device)
    among = ((chosen == best[:, None]) & (place <= last)).any(1, keepdim=True)
    chosen = torch.where(among | ~running | (place != last), chosen, best[:, None])
    mark = ((chosen == best[:, None]) & running).long()
    return chosen // vocabulary, chosen % vocabulary, mark


def _eager(decoder: Decoder, weights: StepWeights | None) -> Advance:
    """The decoder's own steps."""
    ready = decoder.weights() if weights is None else weights
    return lambda state, guide, last: decoder.advance(state, guide, decoder.word_gates(last, ready), ready)


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What R captions have said so far, T columns in all."""

    tokens: Tensor
    """int64 (R, T), EOS where nothing was said yet."""
    chances: Tensor
    """(R, T)"""
    attention: Tensor
    """(R, T, N)"""

    @classmethod
    def nothing(cls, rows: int, tokens: int, guide: Guide) -> _Said:
        zero = guide.gates.new_zeros(rows, tokens, dtype=torch.promote_types(guide.gates.dtype, torch.float32))
        return cls(
            tokens=torch.full_like(zero, EOS, dtype=torch.int64),
            chances=zero,
            attention=zero.new_zeros(rows, tokens, guide.mask.shape[1]),
        )

    def rows(self, index: Tensor) -> _Said:
        return _Said(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def put(self, index: Tensor, said: _Said) -> None:
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(said, field.name)


@torch.inference_mode()
def _decode(
    decoder: Decoder,
    state: State,
    guide: Guide,
    choose: _Choose,
    mark: Tensor,
    count: int,
    max_words: int,
    length_penalty: float,
    weights: StepWeights | None,
    advance: Advance | None,
) -> Hypotheses:
    """Grow captions until each image has `count`, or as many as there are.

    Hypotheses stand in a grid, a row an image, and each carries a mark that means something to `choose`. What has ended
    is put aside; the grid then loses the images that are done and the columns that nobody needs.
    """
    if max_words < 1:
        raise OptionInvalid(f"max_words {max_words} must be at least 1.")
    advance = _eager(decoder, weights) if advance is None else advance
    images, device = len(guide.mask), guide.mask.device
    done = _Said.nothing(images * count, max_words + 1, guide)
    done_scores = torch.full_like(done.chances[:, 0], -torch.inf)
    filled = torch.zeros(images, dtype=torch.int64, device=device)

    image = torch.arange(images, device=device)
    said = _Said.nothing(images, max_words + 1, guide)
    scores = torch.zeros_like(said.chances[:, :1])
    last = torch.full((images,), BOS, device=device)
    for step in range(max_words + 1):
        state, logits = advance(state, guide, last)
        chances = log_chances(logits).view(*scores.shape, -1)
        if step == max_words:
            end = torch.full_like(chances, -torch.inf)
            end[..., EOS] = chances[..., EOS]
            chances = end
        free = count - filled[image]
        parent, word, mark = choose(step, scores, chances, mark, free)
        row = parent + torch.arange(len(image), device=device)[:, None] * scores.shape[1]
        gain = chances.flatten(0, 1)[row, word]
        scores = scores.flatten()[row] + gain
        real = (scores > -torch.inf) & (torch.arange(scores.shape[1], device=device) < free[:, None])
        ended = real & (word == EOS)
        going = real & ~ended

        if bool(ended.any()):
            place = (image * count + filled[image])[:, None] + ended.cumsum(1) - 1
            finished = said.rows(row[ended])
            finished.chances[:, step] = gain[ended]
            finished.attention[:, step] = state.attention[row[ended]].to(gain.dtype)
            done.put(place[ended], finished)
            done_scores[place[ended]] = scores[ended]
            filled[image] += ended.sum(1)
        if not bool(going.all()):
            columns = int(going.sum(1).max())
            if not columns:
                break
            # Those that go on first, in their order; images and columns without any are left out.
            stay = going.any(1)
            order = torch.argsort(~going[stay], dim=1, stable=True)[:, :columns]
            image, going = image[stay], going[stay].gather(1, order)
            row, word, mark, gain, scores = (part[stay].gather(1, order) for part in (row, word, mark, gain, scores))
            scores = scores.masked_fill(~going, -torch.inf)
        row, last = row.flatten(), word.flatten()
        if len(row) != len(state.hidden1) or not torch.equal(row, torch.arange(len(row), device=device)):
            state, guide, said = state.rows(row), guide.rows(row), said.rows(row)
        said.tokens[:, step] = last
        said.chances[:, step] = gain.flatten()
        said.attention[:, step] = state.attention.to(gain.dtype)

    lengths = (done.tokens != EOS).sum(1)
    rank = (done_scores / ((lengths + 6) / 6) ** length_penalty).view(images, count)
    order = rank.argsort(dim=1, descending=True, stable=True)
    order = (order + torch.arange(images, device=device)[:, None] * count).flatten()
    longest = int(lengths.max()) + 1
    return Hypotheses(
        tokens=done.tokens[order, :longest].view(images, count, -1),
        lengths=lengths[order].view(images, count),
        log_probabilities=done.chances[order, :longest].view(images, count, -1),
        attention=done.attention[order, :longest].view(images, count, longest, -1),
        scores=done_scores[order].view(images, count),
    )
