"""Encoder and decoder together: what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saaa.models.captioner.config import CaptionerConfig
from saaa.models.captioner.decoder import Decoder, Guide, State
from saaa.models.captioner.encoder import Encoder, GlobalEncoder
from saaa.models.captioner.graphs import GraphBatch
from saaa.models.captioner.vocabulary import EOS
from saaa.models.captioner.word_cost import word_cost


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What teacher forcing gives; rows are the tokens to predict, longest caption first, step by step."""

    hidden: Tensor
    """(tokens, width): the second LSTM's state before each predicted token."""
    targets: Tensor
    """int64 (tokens,)"""
    attention: Tensor
    """(tokens, N)"""
    rows: Tensor
    """int64 (tokens,): which caption of the batch."""
    memory: Tensor
    """(B, N, width): what the encoder made of each node, captions in the order given."""
    steps: Tensor
    """int64 (tokens,): how many words of it came before; the target is token steps + 1."""


class Captioner(nn.Module):
    """The published captioner: ASG2Caption's role-aware graph encoder and memory-flow decoder, sizes by `config`."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.image = GlobalEncoder(config)
        self.decoder = Decoder(config)

    def begin(self, regions: Tensor, image: Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        """Encode.

        Args:
            regions: (B, N, region_size), any value at padding.
            image: (B, global_size).
            graphs: the structure of B graphs.
        """
        memory = self.encoder(regions, graphs)
        return self.decoder.begin(memory, self.image(image, memory, graphs.mask), graphs)

    def teach(
        self,
        regions: Tensor,
        image: Tensor,
        graphs: GraphBatch,
        captions: Tensor,
        lengths: Tensor,
        quantiles: Tensor | None = None,
    ) -> Taught:
        """Run over given captions.

        Args:
            regions, image, graphs: as for `begin`, one row a caption.
            captions: int64 (B, T), BOS first, padded with anything.
            lengths: int64 (B,), tokens of each caption with BOS (and EOS where not cut off), at least 2.
            quantiles: (B, T), for scheduled sampling (Bengio et al., NeurIPS 2015): where below 1, the decoder reads a
                word of its own in place of this token, the one at that quantile (0 or more) of what it said comes
                there. BOS is always read, and targets are always the captions' tokens.
        """
        state, guide = self.begin(regions, image, graphs)
        memory = state.memory
        # Longest first: the captions still running are always the first rows, and no step works on ended
        # ones.
        order = torch.argsort(lengths, descending=True, stable=True)
        state, guide = state.rows(order), guide.rows(order)
        quantiles = None if quantiles is None else quantiles[order]
        steps = int(lengths.max()) - 1
        running = [int(n) for n in (lengths[:, None] - 1 > torch.arange(steps, device=lengths.device)).sum(0)]
        captions = captions[order]
        # One tensor a step: slicing the whole inside the loop would make a gradient of its full size each time.
        gates = self.decoder.word_gates(captions[:, :steps]).unbind(1)
        weights = self.decoder.weights()
        hidden: list[Tensor] = []
        attention: list[Tensor] = []
        for step, count in enumerate(running):
            if count < len(state.hidden1):
                state, guide = state.rows(slice(count)), guide.rows(slice(count))
            read = gates[step][:count]
            if quantiles is not None and step:
                read = self._own_words(read, state.hidden2, quantiles[:count, step])
            state = self.decoder.step(state, guide, read, weights)
            hidden.append(state.hidden2)
            attention.append(state.attention)
        return Taught(
            hidden=torch.cat(hidden),
            targets=torch.cat([captions[:count, step + 1] for step, count in enumerate(running)]),
            attention=torch.cat(attention),
            rows=torch.cat([order[:count] for count in running]),
            memory=memory,
            steps=torch.arange(steps, device=order.device).repeat_interleave(
                torch.tensor(running, device=order.device)
            ),
        )

    def _own_words(self, gates: Tensor, hidden2: Tensor, quantiles: Tensor) -> Tensor:
        """The gates (R, 4 width) of the words that are read, those of the decoder's own where `quantiles` (R,) are
        below 1; `hidden2` (R, width) scores them."""
        rows = (quantiles < 1).nonzero()[:, 0]
        if not len(rows):
            return gates
        with torch.no_grad():
            chances = self.decoder.log_probabilities(hidden2[rows]).double().exp()
            # Who goes on to read has not ended: decoding never reads EOS.
            chances[:, EOS] = 0
            sums = chances.cumsum(1)
            ids = torch.searchsorted(sums, quantiles[rows, None].double() * sums[:, -1:], right=True)[:, 0]
            ids = ids.clamp(max=sums.shape[1] - 1)
        return gates.index_copy(0, rows, self.decoder.word_gates(ids).to(gates.dtype))

    def loss(self, taught: Taught, *, smoothing: float = 0.0) -> Tensor:
        """Token cross-entropy of what `teach` gave, mean over all predicted tokens of the batch.

        Args:
            taught: of this captioner.
            smoothing: label smoothing, 0 to 1.
        """
        hidden = self.decoder.dropout(taught.hidden)
        return word_cost(hidden, self.decoder.words.weight, taught.targets, smoothing) / len(taught.targets)


def pad_tokens(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of captions, one or more, as `Captioner.teach` takes them: (B, T) and their lengths (B,), int64."""
    tokens = torch.full((len(ids), max(len(row) for row in ids)), EOS)
    for row, values in enumerate(ids):
        tokens[row, : len(values)] = torch.tensor(values)
    return tokens.to(device), torch.tensor([len(row) for row in ids], device=device)
