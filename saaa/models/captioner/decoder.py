"""The two-LSTM decoder with content and flow attention over node memories that it erases and adds to."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from saaa.models.captioner.config import CaptionerConfig
from saaa.models.captioner.graphs import GraphBatch
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

    def rows(self, index: Tensor | slice) -> Guide:
        """The guide of the rows of `index`."""
        return Guide(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


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
        zero = image.new_zeros(image.shape)
        attention = memory.new_zeros(memory.shape[:2])
        attention[:, 0] = 1.0
        state = State(hidden1=zero, cell1=zero, hidden2=zero, cell2=zero, attention=attention, memory=memory)
        d = self.width
        weight = self.lstm1.weight_ih[:, d : 2 * d]
        gates = nn.functional.linear(image, weight, self.lstm1.bias_ih + self.lstm1.bias_hh)
        return state, Guide(gates=gates, flow=graphs.flow.to(memory.dtype), mask=graphs.mask)

    def word_gates(self, ids: Tensor) -> Tensor:
        """The words' part of the first LSTM's gates, (..., 4 width), of `ids` (...)."""
        return nn.functional.linear(self.words(ids), self.lstm1.weight_ih[:, 2 * self.width :])

    def weights(self) -> StepWeights:
        """The weights of a step, joined where one matrix product can do the work of two; once a pass is
        enough."""
        d = self.width
        first = self.write[0]
        assert isinstance(first, nn.Linear)
        return StepWeights(
            lstm1=torch.cat([self.lstm1.weight_ih[:, :d], self.lstm1.weight_hh], dim=1),
            lstm2=torch.cat([self.lstm2.weight_ih, self.lstm2.weight_hh], dim=1),
            lstm2_bias=self.lstm2.bias_ih + self.lstm2.bias_hh,
            memory=torch.cat([self.key.weight, first.weight[:, d:]]),
            write_state=first.weight[:, :d],
            write_bias=first.bias,
        )

    def step(self, state: State, guide: Guide, word_gates: Tensor, weights: StepWeights) -> State:
        """Read one word (its gates, (R, 4 width)) and give the next state; `hidden2` scores the next word.

        The published decoder (ASG2Caption), in order: first LSTM; gates b (content or flow) and s (how far the
        flow goes); content attention c; flow attention f; a = b c + (1 - b) f; second LSTM over what a
        reads; erase and add.
        """
        linear = nn.functional.linear
        gates = guide.gates + word_gates + linear(torch.cat([state.hidden2, state.hidden1], -1), weights.lstm1)
        h1, cell1 = _apply_gates(gates, state.cell1)

        balance, stay = self.gate(torch.cat([h1, _read(state.attention, state.memory)], -1)).split([1, 3], dim=-1)
        balance, stay = torch.sigmoid(balance), torch.softmax(stay, dim=-1)
        # Keys and the first layer of the writer look at the same memories: one product for both.
        keys, seen = linear(state.memory, weights.memory).chunk(2, dim=-1)
        scores = self.score(torch.tanh(self.query(h1)[:, None] + keys))[..., 0]
        content = torch.softmax(scores.masked_fill(~guide.mask, -torch.inf), dim=-1)
        one = torch.bmm(guide.flow, state.attention[..., None])
        two = torch.bmm(guide.flow, one)
        flow = (torch.cat([state.attention[..., None], one, two], -1) @ stay[..., None])[..., 0]
        attention = balance * content + (1 - balance) * flow

        gates = linear(
            torch.cat([h1, _read(attention, state.memory), state.hidden2], -1),
            weights.lstm2,
            weights.lstm2_bias,
        )
        h2, cell2 = _apply_gates(gates, state.cell2)

        amount = torch.sigmoid(self.update(h2)) * attention
        hidden = torch.relu(linear(h2, weights.write_state, weights.write_bias)[:, None] + seen)
        erase, add = self.write[2](hidden).chunk(2, dim=-1)
        memory = state.memory + amount[..., None] * (add - state.memory * torch.sigmoid(erase))
        return State(hidden1=h1, cell1=cell1, hidden2=h2, cell2=cell2, attention=attention, memory=memory)

    def logits(self, hidden2: Tensor) -> Tensor:
        """Word scores (..., vocabulary), single precision or better, of the second LSTM's states (...,
        width)."""
        return self.score_words(self.dropout(hidden2))

    def score_words(self, hidden2: Tensor) -> Tensor:
        """As `logits`, without dropout."""
        logits = nn.functional.linear(hidden2, self.words.weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def log_probabilities(self, hidden2: Tensor) -> Tensor:
        """(..., vocabulary), over the words that may be produced: BOS and UNK are out (minus infinity)."""
        logits = self.logits(hidden2)
        logits[..., BOS] = logits[..., UNK] = -torch.inf
        return torch.log_softmax(logits, dim=-1)


@dataclass(frozen=True, kw_only=True)
class StepWeights:
    """Joined weights of `Decoder.step`; made by `Decoder.weights`."""

    lstm1: Tensor
    lstm2: Tensor
    lstm2_bias: Tensor
    memory: Tensor
    write_state: Tensor
    write_bias: Tensor
