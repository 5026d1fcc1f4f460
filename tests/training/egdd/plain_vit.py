"""MAE's vision transformer from its description, in NumPy-like steps and double precision: an oracle for timm's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saaa.models.classifier import Classifier
from training.egdd.networks import mae_config

State = dict[str, Tensor]
CLASSES = ("bath", "den", "hall")
HEADS = 2
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": HEADS}


def small(*, mean_pooling: bool = False, size: int = 64, classes: tuple[str, ...] = CLASSES) -> Classifier:
    """MAE's network at a small width and depth, every weight drawn, norms and biases too: none can go unnoticed."""
    config = mae_config(
        "vit_base_patch16_224", classes, mean_pooling=mean_pooling, input_size=size, crop_fraction=224 / 256
    )
    classifier = Classifier(replace(config, options={**config.options, **SMALL})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in classifier.net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return classifier


def pretraining(*, size: int = 64) -> State:
    """The weights of MAE's pretraining: an encoder with its final norm, no head, a decoder."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    width, tokens = SMALL["embed_dim"], (size // 16) ** 2 + 1
    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, tokens, width),
        "mask_token": draw(1, 1, 24),
        "decoder_pos_embed": draw(1, tokens, 24),
        "patch_embed.proj.weight": draw(width, 3, 16, 16),
        "patch_embed.proj.bias": draw(width),
    }
    for name, inner, blocks in (("blocks", width, SMALL["depth"]), ("decoder_blocks", 24, 1)):
        for i in range(blocks):
            shapes = {
                "norm1": (inner,),
                "attn.qkv": (3 * inner, inner),
                "attn.proj": (inner, inner),
                "norm2": (inner,),
                "mlp.fc1": (4 * inner, inner),
                "mlp.fc2": (inner, 4 * inner),
            }
            for part, shape in shapes.items():
                state[f"{name}.{i}.{part}.weight"], state[f"{name}.{i}.{part}.bias"] = draw(*shape), draw(shape[0])
    ends = {"norm": (width,), "decoder_embed": (24, width), "decoder_norm": (24,), "decoder_pred": (768, 24)}
    for part, shape in ends.items():
        state[f"{part}.weight"], state[f"{part}.bias"] = draw(*shape), draw(shape[0])
    return state


def features(state: State, images: Tensor, *, mean_pooling: bool) -> Tensor:
    """What the head sees: (B, 3, S, S) -> (B, width); every step written out, norms with eps 1e-6."""
    p = {key: value.double() for key, value in state.items()}
    patch, width = p["patch_embed.proj.weight"].shape[-1], p["cls_token"].shape[-1]
    batch, _, height, _ = images.shape
    side = height // patch

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        return (
            centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * p[f"{name}.weight"]
            + p[f"{name}.bias"]
        )

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    cut = images.double().reshape(batch, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    tokens = cut @ p["patch_embed.proj.weight"].flatten(1).T + p["patch_embed.proj.bias"]
    x = torch.cat([p["cls_token"].expand(batch, 1, width), tokens], dim=1) + p["pos_embed"]
    for i in range(SMALL["depth"]):
        name = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, dim=-1)
        mixed = []
        for own in torch.arange(width).chunk(HEADS):
            weights = (q[..., own] @ k[..., own].transpose(1, 2) / len(own) ** 0.5).softmax(dim=-1)
            mixed.append(weights @ v[..., own])
        x = x + linear(torch.cat(mixed, dim=-1), f"{name}.attn.proj")
        x = x + linear(gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
    return norm(x[:, 1:].mean(dim=1), "fc_norm") if mean_pooling else norm(x, "norm")[:, 0]
