"""The captioner as its equations read, batched, with nothing saved: what the real one is measured against.

It borrows the weights of a `Captioner` and none of its methods. Graphs are padded to the captioner's limit, training
runs over the longest caption that there may be, decoding never stops early: as the published programs do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saaa.models.captioner import BOS, UNK, Captioner, GraphBatch

State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Both hidden states and cells, attention, memory."""


class PlainCaptioner:
    """Args: the captioner whose weights are used; they are not copied."""

    def __init__(self, captioner: Captioner) -> None:
        self.encoder, self.image, self.decoder = captioner.encoder, captioner.image, captioner.decoder

    def encode(self, regions: Tensor, image: Tensor, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        """Memories (B, N, width) and the image's code (B, width)."""
        role = self.encoder.role
        embedded = role.roles(graphs.types) + role.orders[graphs.orders]
        nodes = torch.relu(self.encoder.project(regions * embedded))
        for layer in self.encoder.layers:
            own = torch.einsum("bsi,ij->bsj", nodes, layer.own)
            others = torch.einsum("brts,bsi,rij->btj", graphs.relations, nodes, layer.related)
            nodes = torch.relu(own + others)
        mask = graphs.mask[..., None].to(nodes.dtype)
        mean = (nodes * mask).sum(1) / mask.sum(1)
        return nodes, self.image.project(torch.cat([image, mean], 1))

    def begin(self, memory: Tensor) -> State:
        """The state before the first word."""
        zero = memory.new_zeros(len(memory), memory.shape[2])
        attention = memory.new_zeros(memory.shape[:2])
        attention[:, 0] = 1
        return zero, zero, zero, zero, attention, memory

    def step(self, state: State, image: Tensor, graphs: GraphBatch, words: Tensor) -> tuple[Tensor, State]:
        """Word scores (B, vocabulary) after `words` (B,), and the next state."""
        decoder = self.decoder
        h1, c1, h2, c2, attention, memory = state
        h1, c1 = decoder.lstm1(torch.cat([h2, image, decoder.words(words)], 1), (h1, c1))
        keys = decoder.key(memory)
        seen = (attention[..., None] * memory).sum(1)
        address = decoder.gate(torch.cat([h1, seen], 1))
        balance, stay = torch.sigmoid(address[:, :1]), torch.softmax(address[:, 1:], 1)
        scores = decoder.score(torch.tanh(decoder.query(h1)[:, None] + keys))[..., 0]
        content = torch.softmax(scores.masked_fill(~graphs.mask, -1e18), 1)
        one = torch.einsum("bts,bs->bt", graphs.flow, attention)
        two = torch.einsum("bts,bs->bt", graphs.flow, one)
        flow = (torch.stack([attention, one, two], 2) * stay[:, None]).sum(2)
        attention = balance * content + (1 - balance) * flow
        read = (attention[..., None] * memory).sum(1)
        h2, c2 = decoder.lstm2(torch.cat([h1, read], 1), (h2, c2))
        logits = decoder.dropout(h2) @ decoder.words.weight.t()
        both = torch.cat([h2[:, None].expand(-1, memory.shape[1], -1), memory], 2)
        erase, add = decoder.write(both).chunk(2, 2)
        amount = (torch.sigmoid(decoder.update(h2)) * attention)[..., None]
        memory = memory * (1 - amount * torch.sigmoid(erase)) + amount * add
        return logits, (h1, c1, h2, c2, attention, memory)

    def loss(self, regions: Tensor, image: Tensor, graphs: GraphBatch, captions: Tensor, lengths: Tensor) -> Tensor:
        """Mean cross-entropy of the tokens inside the captions; every step is run for every caption."""
        memory, code = self.encode(regions, image, graphs)
        state = self.begin(memory)
        steps: list[Tensor] = []
        for t in range(captions.shape[1] - 1):
            logits, state = self.step(state, code, graphs, captions[:, t])
            steps.append(logits)
        every = torch.stack(steps, 1).flatten(0, 1)
        costs = nn.functional.cross_entropy(every, captions[:, 1:].flatten(), reduction="none")
        inside = torch.arange(1, captions.shape[1]) < lengths[:, None]
        return (costs * inside.flatten()).sum() / inside.sum()

    @torch.no_grad()
    def greedy(self, regions: Tensor, image: Tensor, graphs: GraphBatch, steps: int) -> Tensor:
        """Likeliest words one after the other, int64 (B, steps)."""
        memory, code = self.encode(regions, image, graphs)
        state, words = self.begin(memory), torch.full((len(image),), BOS)
        found: list[Tensor] = []
        for _ in range(steps):
            logits, state = self.step(state, code, graphs, words)
            words = _chances(logits).topk(1, dim=1).indices[:, 0]
            found.append(words)
        return torch.stack(found, 1)

    @torch.no_grad()
    def beam(self, regions: Tensor, image: Tensor, graphs: GraphBatch, steps: int, width: int) -> Tensor:
        """The best of `width` beginnings, int64 (B, steps); nothing ends."""
        memory, code = self.encode(regions, image, graphs)
        logits, state = self.step(self.begin(memory), code, graphs, torch.full((len(image),), BOS))
        scores, words = _chances(logits).topk(width, dim=1)
        first = torch.arange(len(image))[:, None] * width
        spread = torch.arange(len(image)).repeat_interleave(width)
        state = tuple(part[spread] for part in state)  # type: ignore[assignment]
        code, graphs = code[spread], _take(graphs, spread)
        found = words.reshape(-1, 1)
        for _ in range(1, steps):
            logits, state = self.step(state, code, graphs, found[:, -1])
            total = scores[..., None] + _chances(logits).view(len(image), width, -1)
            scores, chosen = total.flatten(1).topk(width, dim=1)
            rows = (first + chosen // total.shape[2]).flatten()
            state = tuple(part[rows] for part in state)  # type: ignore[assignment]
            found = torch.cat([found[rows], (chosen % total.shape[2]).reshape(-1, 1)], 1)
        return found.view(len(image), width, steps)[:, 0]


def _chances(logits: Tensor) -> Tensor:
    logits[:, [BOS, UNK]] = -torch.inf
    return torch.log_softmax(logits, 1)


def _take(graphs: GraphBatch, rows: Tensor) -> GraphBatch:
    return GraphBatch(
        types=graphs.types[rows],
        orders=graphs.orders[rows],
        mask=graphs.mask[rows],
        relations=graphs.relations[rows],
        flow=graphs.flow[rows],
    )
