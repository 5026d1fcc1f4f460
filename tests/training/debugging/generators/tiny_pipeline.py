"""A Stable Diffusion pipeline of a few thousand untrained weights, as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WORDS = ("a", "photo", "of", "museum", "art", "studio", "lamp", "with", "no")
SIZE = 16
"""Width and height of the images, pixels."""


def save_tiny_pipeline(folder: Path, **parts: Any) -> Path:
    """Make the pipeline.

    Args:
        folder: where it goes.
        parts: components that take the place of its own.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    own: dict[str, Any] = {
        "vae": AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(
            sample_size=SIZE // 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        "scheduler": PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**{**own, **parts}, requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's byte pairs with the words above as whole tokens."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            parts[:2] = ["".join(parts[:2])]
            if pair not in merges:
                merges.append(pair)
                tokens.append(parts[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=32)
