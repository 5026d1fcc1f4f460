"""The two-LSTM decoder with content and flow attention over node memories that it erases and adds to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from saaa.models.captioner.config import CaptionerConfig
from saaa.models.captioner.graphs import GraphBatch, real_nodes
from saaa.models.captioner.packed import pack
from saaa.models.captioner.vocabulary import BOS, UNK


@dataclass(frozen=True, kw_only=True)
class State:
    """What a hypothesis carries from word to word, R rows. `attention` and `memory` are those of the last
    step."""

    hidden1: Tensor
    """(R, width)"""
    cell1: Tensor
    hidden2: Tensor
    cell2: Tensor
    attention: Tensor
    """(R, N), rows sum to 1."""
    memory: Tensor
    """(R, N, width)"""

    def rows(self, index: Tensor | slice) -> State:
        """The state of the rows of `index`: every tensor is taken, so a hypothesis stays whole."""
        return State(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What stays the same for all words of a row."""

    gates: Tensor
    """(R, 4 width): the image's part of the first LSTM's gates, biases included."""
    flow: Tensor
    """(R, N, N)"""
    mask: Tensor
    """bool (R, N)"""
    real: Tensor | None
    """int64: which of the R x N places hold a node, see `real_nodes`."""

    def rows(self, index: Tensor | slice) -> Guide:
        """The guide of the rows of `index`."""
        mask = self.mask[index]
        return Guide(gates=self.gates[index], flow=self.flow[index], mask=mask, real=real_nodes(mask))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _lstm(inputs: int, width: int) -> nn.LSTMCell:
    cell = nn.LSTMCell(inputs, width)
    nn.init.orthogonal_(cell.weight_ih)
    nn.init.orthogonal_(cell.weight_hh)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    with torch.no_grad():
        cell.bias_ih[width : 2 * width] = 1.0  # the forget gate, in PyTorch's order input, forget, cell, output
    return cell


def _apply_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The LSTM's new hidden state and cell from the summed gates (R, 4 width)."""
    enter, forget, new, leave = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _read(attention: Tensor, memory: Tensor) -> Tensor:
    """sum_i a_i m_i: (R, width)."""
    return torch.bmm(attention[:, None], memory)[:, 0]


class Decoder(nn.Module):
    """Words one by one. Equations in the order of a step: see `step`."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        d = self.width = config.width
        self.words = nn.Embedding(config.vocabulary_size, d)  # tied: it also scores the words
        self.lstm1 = _lstm(3 * d, d)
        self.gate = _mlp(2 * d, d, 1 + 3)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d, bias=False)
        self.score = nn.Linear(d, 1, bias=False)
        self.lstm2 = _lstm(2 * d, d)
        self.update = _mlp(d, d, 1)
        self.write = _mlp(2 * d, d, 2 * d)
        self.dropout = nn.Dropout(config.dropout)

    def begin(self, memory: Tensor, image: Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        """The state before the first word, and the guide.

        Args:
            memory: (B, N, width), zero at padding.
            image: (B, width), the encoded image.
            graphs: their structure.
        """
        return self.start(memory, self.image_gates(image), graphs)

    def image_gates(self, image: Tensor) -> Tensor:
        """The encoded image's part of the first LSTM's gates, biases included: (B, 4 width) from (B, width)."""
        weight = self.lstm1.weight_ih[:, self.width : 2 * self.width]
        return nn.functional.linear(image, weight, self.lstm1.bias_ih + self.lstm1.bias_hh)

    def start(self, memory: Tensor, gates: Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        """As `begin`, with what `image_gates` gave."""
        zero = memory.new_zeros(len(memory), self.width)
        attention = memory.new_zeros(memory.shape[:2])
        attention[:, 0] = 1.0
        state = State(hidden1=zero, cell1=zero, hidden2=zero, cell2=zero, attention=attention, memory=memory)
        flow = graphs.flow.to(memory.dtype)
        return state, Guide(gates=gates, flow=flow, mask=graphs.mask, real=real_nodes(graphs.mask))

    def word_gates(self, ids: Tensor, weights: StepWeights | None = None) -> Tensor:
        """The words' part of the first LSTM's gates, (..., 4 width), of `ids` (...)."""
        if weights is not None and weights.words is not None:
            return weights.words[ids]
        return nn.functional.linear(self.words(ids), self.lstm1.weight_ih[:, 2 * self.width :])

    def weights(self, *, frozen: bool = False) -> StepWeights:
        """The weights of a step, joined where one matrix product can do the work of two; once a pass is enough.

        Args:
            frozen: prepare for many passes without gradients, as long as the weights do not change: matrices are put
                into the order in which they are read, and the words' gates into a table. Takes about twice the
                decoder's memory, and 16 x vocabulary x width bytes.
        """
        d = self.width
        first, last = self.write[0], self.write[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        joined = {
            "lstm1": (torch.cat([self.lstm1.weight_ih[:, :d], self.lstm1.weight_hh], dim=1), None),
            "lstm2": (
                torch.cat([self.lstm2.weight_ih, self.lstm2.weight_hh], dim=1),
                self.lstm2.bias_ih + self.lstm2.bias_hh,
            ),
            "memory": (torch.cat([self.key.weight, first.weight[:, d:]]), None),
            "write_state": (first.weight[:, :d], first.bias),
            "write": (last.weight, last.bias),
            "score_words": (self.words.weight, None),
        }
        if not frozen:
            plain = {name: _product(*parts) for name, parts in joined.items()}
            return StepWeights(**plain, gate=self.gate, query=self.query, update=self.update, words=None)
        with torch.inference_mode():
            packed = {name: pack(*parts) for name, parts in joined.items()}
            table = self.word_gates(torch.arange(self.words.num_embeddings, device=self.words.weight.device))
            return StepWeights(
                **packed,
                gate=_packed_mlp(self.gate),
                query=pack(self.query.weight, self.query.bias),
                update=_packed_mlp(self.update),
                words=table,
            )

    def step(self, state: State, guide: Guide, word_gates: Tensor, weights: StepWeights) -> State:
        """Read one word (its gates, (R, 4 width)) and give the next state; `hidden2` scores the next word.

        The published decoder (ASG2Caption), in order: first LSTM; gates b (content or flow) and s (how far the
        flow goes); content attention c; flow attention f; a = b c + (1 - b) f; second LSTM over what a
        reads; erase and add.
        """
        gates = guide.gates + word_gates + weights.lstm1(torch.cat([state.hidden2, state.hidden1], -1))
        h1, cell1 = _apply_gates(gates, state.cell1)

        address = weights.gate(torch.cat([h1, _read(state.attention, state.memory)], -1))
        balance, stay = torch.sigmoid(address[:, :1]), torch.softmax(address[:, 1:], dim=-1)
        # What is computed of each node by itself is computed of the real ones only, M in all.
        nodes = Nodes(state.memory, guide.real)
        # Keys and the first layer of the writer look at the same memories: one product for both.
        keys, seen = weights.memory(nodes.values).chunk(2, dim=-1)
        scores = nodes.spread(self.score(torch.tanh(nodes.of_rows(weights.query(h1)) + keys)))[..., 0]
        content = torch.softmax(scores.masked_fill(~guide.mask, -torch.inf), dim=-1)
        one = torch.bmm(guide.flow, state.attention[..., None])
        two = torch.bmm(guide.flow, one)
        flow = (torch.cat([state.attention[..., None], one, two], -1) @ stay[..., None])[..., 0]
        attention = balance * content + (1 - balance) * flow

        gates = weights.lstm2(torch.cat([h1, _read(attention, state.memory), state.hidden2], -1))
        h2, cell2 = _apply_gates(gates, state.cell2)

        amount = nodes.of_places(torch.sigmoid(weights.update(h2)) * attention)
        erase, add = weights.write(torch.relu(nodes.of_rows(weights.write_state(h2)) + seen)).chunk(2, dim=-1)
        memory = nodes.spread(nodes.values + amount[:, None] * (add - nodes.values * torch.sigmoid(erase)))
        return State(hidden1=h1, cell1=cell1, hidden2=h2, cell2=cell2, attention=attention, memory=memory)

    def advance(self, state: State, guide: Guide, word_gates: Tensor, weights: StepWeights) -> tuple[State, Tensor]:
        """As `step`, with the next word's scores, (R, vocabulary): what decoding does for each word."""
        state = self.step(state, guide, word_gates, weights)
        return state, weights.score_words(state.hidden2)

    def logits(self, hidden2: Tensor) -> Tensor:
        """Word scores (..., vocabulary), single precision or better, of the second LSTM's states (...,
        width)."""
        return self.score_words(self.dropout(hidden2))

    def score_words(self, hidden2: Tensor) -> Tensor:
        """As `logits`, without dropout."""
        logits = nn.functional.linear(hidden2, self.words.weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def log_probabilities(self, hidden2: Tensor, weights: StepWeights | None = None) -> Tensor:
        """(..., vocabulary), over the words that may be produced: BOS and UNK are out (minus infinity)."""
        return log_chances(self.score_words(hidden2) if weights is None else weights.score_words(hidden2))


def log_chances(logits: Tensor) -> Tensor:
    """Log-probabilities of word scores (..., vocabulary), over the words that may be produced: BOS and UNK are out
    (minus infinity). May write into the scores."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits[..., BOS] = logits[..., UNK] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


class Nodes:
    """The real nodes of padded memories, one below the other.

    Args:
        memory: (R, N, width).
        real: places of the R x N that hold a node, (M,) int64; None is all of them.
    """

    def __init__(self, memory: Tensor, real: Tensor | None) -> None:
        self._shape, self._real = memory.shape[:2], real
        self.values = self._picked(memory.flatten(0, 1))
        """(M, width)"""

    def of_rows(self, values: Tensor) -> Tensor:
        """(M, size): for each node what belongs to its row, of (R, size)."""
        if self._real is None:
            return values.repeat_interleave(self._shape[1], dim=0)
        return values.index_select(0, self._real // self._shape[1])

    def of_places(self, values: Tensor) -> Tensor:
        """(M,): for each node what is at its place, of (R, N)."""
        return self._picked(values.flatten())

    def spread(self, values: Tensor) -> Tensor:
        """(R, N, size), zero at padding, of (M, size)."""
        if self._real is not None:
            padded = values.new_zeros(self._shape[0] * self._shape[1], values.shape[1])
            values = padded.index_copy(0, self._real, values)
        return values.view(*self._shape, values.shape[1])

    def _picked(self, values: Tensor) -> Tensor:
        return values if self._real is None else values.index_select(0, self._real)


_Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepWeights:
    """The linear parts of `Decoder.step`; made by `Decoder.weights`."""

    lstm1: _Product
    gate: _Product
    query: _Product
    memory: _Product
    lstm2: _Product
    update: _Product
    write_state: _Product
    write: _Product
    score_words: _Product
    words: Tensor | None
    """(vocabulary, 4 width), each word's gates; None where they are computed when needed."""


def _product(weight: Tensor, bias: Tensor | None) -> _Product:
    return lambda values: nn.functional.linear(values, weight, bias)


def _packed_mlp(mlp: nn.Sequential) -> _Product:
    """As the two-layer perceptron, its first layer packed; the second is small."""
    first, last = mlp[0], mlp[2]
    assert isinstance(first, nn.Linear)
    inner = pack(first.weight, first.bias)
    return lambda values: last(torch.relu(inner(values)))
