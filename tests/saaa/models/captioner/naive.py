"""The captioner a second time, written from its equations with one loop for every index: slow and plain.

It shares nothing with the real one but the names of the weights.
"""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def lstm(weights, name, x, hidden, cell):
    d = len(hidden)
    gates = (
        weights[f"{name}.weight_ih"] @ x
        + weights[f"{name}.bias_ih"]
        + weights[f"{name}.weight_hh"] @ hidden
        + weights[f"{name}.bias_hh"]
    )
    new_cell, new_hidden = np.zeros(d), np.zeros(d)
    for k in range(d):
        enter, forget = sigmoid(gates[k]), sigmoid(gates[d + k])
        candidate, leave = math.tanh(gates[2 * d + k]), sigmoid(gates[3 * d + k])
        new_cell[k] = forget * cell[k] + enter * candidate
        new_hidden[k] = leave * math.tanh(new_cell[k])
    return new_hidden, new_cell


def mlp(weights, name, x):
    inner = weights[f"{name}.0.weight"] @ x + weights[f"{name}.0.bias"]
    inner = np.array([max(v, 0.0) for v in inner])
    return weights[f"{name}.2.weight"] @ inner + weights[f"{name}.2.bias"]


def order_row(order, size):
    row = np.zeros(size)
    if order > 0:
        for k in range(0, size, 2):
            angle = (order - 1) / 10_000 ** (k / size)
            row[k], row[k + 1] = math.sin(angle), math.cos(angle)
    return row


def encode(weights, regions, graph, layers):
    """Node memories (list of vectors) of one graph from its regions (N, D)."""
    n = len(graph.types)
    nodes = []
    for i in range(n):
        role = weights["encoder.role.roles.weight"][graph.types[i]]
        x = regions[i] * (role + order_row(graph.orders[i], regions.shape[1]))
        h = weights["encoder.project.weight"] @ x + weights["encoder.project.bias"]
        nodes.append(np.array([max(v, 0.0) for v in h]))
    for layer in range(layers):
        own = weights[f"encoder.layers.{layer}.own"]
        related = weights[f"encoder.layers.{layer}.related"]
        after = []
        for i in range(n):
            total = nodes[i] @ own
            for r in range(6):
                sources = [s for s, t, kind in graph.edges if t == i and kind == r]
                for s in sources:
                    total = total + (nodes[s] @ related[r]) / len(sources)
            after.append(np.array([max(v, 0.0) for v in total]))
        nodes = after
    return nodes


def flow_once(graph, attention):
    """Attention after one step along the flow edges."""
    n = len(graph.types)
    targets = {i: [t for s, t, kind in graph.edges if s == i and kind in (0, 1, 2, 4)] for i in range(n)}
    after = [0.0] * n
    for i in range(n):
        for t in targets[i] or [i]:
            after[t] += attention[i] / len(targets[i] or [i])
    return after


def decode(weights, memory, image, graph, ids):
    """Word scores and attentions, one each for every id read, of one graph."""
    n, d = len(memory), len(image)
    memory = [m.copy() for m in memory]
    h1, c1, h2, c2 = (np.zeros(d) for _ in range(4))
    attention = [1.0] + [0.0] * (n - 1)
    words = weights["decoder.words.weight"]
    all_logits, all_attention = [], []
    for index in ids:
        h1, c1 = lstm(weights, "decoder.lstm1", np.concatenate([h2, image, words[index]]), h1, c1)
        seen = sum(attention[i] * memory[i] for i in range(n))
        gates = mlp(weights, "decoder.gate", np.concatenate([h1, seen]))
        b, s = sigmoid(gates[0]), softmax(list(gates[1:]))
        query = weights["decoder.query.weight"] @ h1 + weights["decoder.query.bias"]
        scores = [
            float(weights["decoder.score.weight"][0] @ np.tanh(query + weights["decoder.key.weight"] @ memory[i]))
            for i in range(n)
        ]
        content = softmax(scores)
        one = flow_once(graph, attention)
        two = flow_once(graph, one)
        attention = [b * content[i] + (1 - b) * (s[0] * attention[i] + s[1] * one[i] + s[2] * two[i]) for i in range(n)]
        read = sum(attention[i] * memory[i] for i in range(n))
        h2, c2 = lstm(weights, "decoder.lstm2", np.concatenate([h1, read]), h2, c2)
        all_logits.append(words @ h2)
        all_attention.append(attention)
        u = sigmoid(mlp(weights, "decoder.update", h2)[0])
        for i in range(n):
            written = mlp(weights, "decoder.write", np.concatenate([h2, memory[i]]))
            erase, add = sigmoid(written[:d]), written[d:]
            k = u * attention[i]
            memory[i] = memory[i] * (1 - k * erase) + k * add
    return np.array(all_logits), np.array(all_attention)


def run(weights, regions, image, graph, ids, layers):
    """Logits (T, V) and attentions (T, N) while reading `ids`."""
    memory = encode(weights, regions, graph, layers)
    mean = sum(memory) / len(memory)
    image = weights["image.project.weight"] @ np.concatenate([image, mean]) + weights["image.project.bias"]
    return decode(weights, memory, image, graph, ids)
