"""LRP of a plain vision transformer the slow way: relevance handed down layer by layer, contribution by contribution.

Nothing here differentiates. Every linear step is an explicit matrix of contributions; float64; one image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def linear(relevance: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gamma: float = 0.0) -> Tensor:
    """From outputs (tokens, n) to inputs (tokens, m): by each contribution's share, those of the output's sign more."""
    parts = x[:, None, :] * weight[None]  # (tokens, n, m)
    out = parts.sum(dim=2) + bias
    sign = out.sign()[..., None]
    parts = parts + gamma * torch.where(parts * sign > 0, parts, 0)
    offset = bias + gamma * torch.where(bias * sign[..., 0] > 0, bias, 0)
    whole = parts.sum(dim=2) + offset
    return (parts / whole[..., None] * relevance[..., None]).sum(dim=1)


def layer_norm(relevance: Tensor, x: Tensor, norm: Any) -> Tensor:
    """The deviation is a number: what is left is a matrix that subtracts the mean and scales."""
    size = x.shape[1]
    centre = torch.eye(size, dtype=x.dtype) - 1 / size
    rows = []
    for token, share in zip(x, relevance, strict=True):
        deviation = (token.var(correction=0) + norm.eps).sqrt()
        matrix = torch.diag(norm.weight / deviation) @ centre
        rows.append(linear(share[None], token[None], matrix, norm.bias)[0])
    return torch.stack(rows)


def attention(relevance: Tensor, query: Tensor, key: Tensor, value: Tensor, detach: bool) -> tuple[Tensor, ...]:
    """One head, (tokens, d) each: relevance of query, key and value from that of the head's output."""
    scale = query.shape[1] ** -0.5
    scores = query @ key.T * scale
    weights = scores.softmax(dim=1)
    parts = weights[:, :, None] * value[None]  # (queries, keys, d)
    shares = parts / parts.sum(dim=1, keepdim=True) * relevance[:, None]
    if detach:
        return torch.zeros_like(query), torch.zeros_like(key), shares.sum(dim=0)
    of_weights = shares.sum(dim=2) / 2
    of_scores = scores * (of_weights - weights * of_weights.sum(dim=1, keepdim=True))
    products = query[:, None] * key[None] * scale
    pairs = products / scores[..., None] * of_scores[..., None] / 2
    return pairs.sum(dim=1), pairs.sum(dim=0), shares.sum(dim=0) / 2


def propagate(net: Any, image: Tensor, target: int, *, detach: bool, gamma: float = 0.0) -> tuple[Tensor, list[Tensor]]:
    """The map (rows, columns) of one image (3, S, S) for one class, and what enters each block, (tokens,).

    The network is a `VisionTransformer` with layer norms and GELU.

    Pooling is by class token, or by mean with the norm behind it.
    """
    size = net.patch_embed.proj.kernel_size[0]
    rows, columns = net.patch_embed.grid_size
    kernel = net.patch_embed.proj.weight.flatten(1)
    patches = image.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).reshape(rows * columns, -1)
    embedded = patches @ kernel.T
    tokens = embedded + net.patch_embed.proj.bias
    prefix = net.num_prefix_tokens
    if prefix:
        tokens = torch.cat([net.cls_token[0], tokens])
    tokens = tokens + net.pos_embed[0]

    saved = []
    for block in net.blocks:
        kept = {"in": tokens, "normed": block.norm1(tokens)}
        heads, width = block.attn.num_heads, block.attn.head_dim
        joint = kept["normed"] @ block.attn.qkv.weight.T + block.attn.qkv.bias
        kept["parts"] = joint.view(len(tokens), 3, heads, width).permute(1, 2, 0, 3)
        query, key, value = kept["parts"]
        mixed = (query @ key.transpose(1, 2) * width**-0.5).softmax(dim=-1) @ value
        kept["mixed"] = mixed.transpose(0, 1).reshape(len(tokens), -1)
        kept["attended"] = block.attn.proj(kept["mixed"])
        kept["middle"] = tokens + kept["attended"]
        kept["normed2"] = block.norm2(kept["middle"])
        kept["hidden"] = torch.nn.functional.gelu(block.mlp.fc1(kept["normed2"]))
        kept["out"] = block.mlp.fc2(kept["hidden"])
        tokens = kept["middle"] + kept["out"]
        saved.append(kept)

    pooled = tokens[:1] if prefix else tokens.mean(dim=0, keepdim=True)
    normed = (net.norm if prefix else net.fc_norm)(pooled)
    logits = net.head(normed)
    relevance = torch.zeros_like(logits)
    relevance[0, target] = logits[0, target]
    relevance = linear(relevance, normed, net.head.weight, net.head.bias, gamma)
    relevance = layer_norm(relevance, pooled, net.norm if prefix else net.fc_norm)
    if prefix:
        relevance = torch.cat([relevance, torch.zeros_like(tokens[1:])])
    else:
        relevance = tokens / len(tokens) / pooled * relevance

    entering: list[Tensor] = []
    for block, kept in zip(reversed(net.blocks), reversed(saved), strict=True):
        tokens = kept["middle"] + kept["out"]
        straight, branch = kept["middle"] / tokens * relevance, kept["out"] / tokens * relevance
        branch = linear(branch, kept["hidden"], block.mlp.fc2.weight, block.mlp.fc2.bias, gamma)
        branch = linear(branch, kept["normed2"], block.mlp.fc1.weight, block.mlp.fc1.bias, gamma)  # GELU passes all
        relevance = straight + layer_norm(branch, kept["middle"], block.norm2)

        middle = kept["middle"]
        straight, branch = kept["in"] / middle * relevance, kept["attended"] / middle * relevance
        branch = linear(branch, kept["mixed"], block.attn.proj.weight, block.attn.proj.bias, gamma)
        by_head = branch.view(len(branch), block.attn.num_heads, -1).transpose(0, 1)
        parts = [attention(of_head, *kept["parts"][:, head], detach=detach) for head, of_head in enumerate(by_head)]
        joint = torch.stack([torch.stack(heads) for heads in zip(*parts, strict=True)])
        joint = joint.permute(2, 0, 1, 3).reshape(len(branch), -1)
        branch = linear(joint, kept["normed"], block.attn.qkv.weight, block.attn.qkv.bias, gamma)
        relevance = straight + layer_norm(branch, kept["in"], block.norm1)
        entering.insert(0, relevance.sum(dim=1))

    # A token is patch + biases + position, of which the patch's share is read.
    first = saved[0]["in"][prefix:]
    return (embedded / first * relevance[prefix:]).sum(dim=1).view(rows, columns), entering
