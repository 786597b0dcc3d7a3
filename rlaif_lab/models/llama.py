"""The forward pass of a small Llama in few operations: same numbers as transformers', in about two thirds of the time.

transformers writes a layer for every model and every cache; for one as narrow as the organisms, its many small
operations cost as much as the arithmetic. Here norms, rotation and gated activation are one step each, forwards and
backwards; the last layer is computed only where somebody asks for logits; and k samples attend to one copy of their
prompt's keys. ``tests/models/test_llama.py`` holds it to transformers' own, gradients included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel

WIDEST = 512
"""Hidden size up to which this pays; wider models are bound by their matrix products, whoever calls them."""


def is_small_llama(network: PreTrainedModel) -> bool:
    """Return whether ``forward`` computes what this network would: an unmodified float32 Llama on the CPU."""
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    # Exactly this class: a subclass may compute something else.
    if type(network) is not LlamaForCausalLM or network.config.hidden_size > WIDEST:
        return False
    c, weight = network.config, network.lm_head.weight
    plain = c.hidden_act == "silu" and not c.attention_bias and not c.mlp_bias and not c.attention_dropout
    default_rope = c.rope_parameters.get("rope_type", "default") == "default"
    # Adapters, quantised layers and hooks change what a layer computes.
    whole = all(type(layer) is LlamaDecoderLayer for layer in network.model.layers)  # not sharded, nor wrapped
    unmodified = (
        whole
        and all(type(linear) is torch.nn.Linear for linear in _linears(network))
        and not (network._forward_hooks or network._forward_pre_hooks)
    )
    here = weight.dtype == torch.float32 and weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and default_rope and unmodified and here


def _linears(network: LlamaForCausalLM) -> list[Any]:
    layer = network.model.layers[0]
    a, m = layer.self_attn, layer.mlp
    return [a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj, network.lm_head]


@dataclass
class KeyValues:
    """Keys and values of each layer so far: (B, T, heads, D) each."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def extended(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        # The first call fills the layers, in order; later ones extend them.
        if index == len(self.layers):
            self.layers.append((key, value))
        else:
            held_key, held_value = self.layers[index]
            self.layers[index] = torch.cat([held_key, key], 1), torch.cat([held_value, value], 1)
        return self.layers[index]

    def select(self, rows: Tensor, columns: Tensor) -> None:
        """Select by indices that broadcast against each other, of the first and the second dimension."""
        self.layers = [(key[rows, columns], value[rows, columns]) for key, value in self.layers]


def forward(
    network: LlamaForCausalLM,
    ids: Tensor,
    positions: Tensor,
    mask: Tensor,
    kept: int,
    past: KeyValues | None = None,
    headless: bool = False,
) -> Tensor:
    """Return logits of the last ``kept`` positions: (B, kept, V); ``headless``: the states they are made from, (B,
    kept, H).

    ids, positions: (B, T). mask: additive, broadcast against (B, heads, T, S) with S = T and what ``past`` holds; it is
    extended by this call's keys and values.
    """
    config, layers = network.config, network.model.layers
    rows, width = ids.shape
    # (B T, H): two dimensions throughout, so that every product is one matrix product.
    x = network.model.embed_tokens(ids).view(rows * width, -1)
    cos, sin = _rotation(network, positions)
    for index, layer in enumerate(layers):
        # The last layer computes only what is asked for: nothing reads its other positions.
        keep = kept if index == len(layers) - 1 else width
        x = _layer(layer, config, index, x=x, cos=cos, sin=sin, mask=mask, shape=(rows, width, keep), past=past)
    x = rms_normed(x, network.model.norm.weight, config.rms_norm_eps)
    return (x if headless else F.linear(x, network.lm_head.weight)).view(rows, kept, -1)


def _layer(
    layer: Any,
    config: Any,
    index: int,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    shape: tuple[int, int, int],
    past: KeyValues | None,
) -> Tensor:
    """Return the layer's output: (B T, H) -> (B keep, H)."""
    rows, width, keep = shape
    a, m, eps = layer.self_attn, layer.mlp, config.rms_norm_eps
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, a.head_dim
    h = rms_normed(x, layer.input_layernorm.weight, eps)
    # Keys and values of all positions: later ones attend to them, though no logits may be asked of these.
    key = rotated(F.linear(h, a.k_proj.weight).view(rows, width, groups, size), cos, sin)
    value = F.linear(h, a.v_proj.weight).view(rows, width, groups, size)
    if past is not None:
        key, value = past.extended(index, key, value)
    if keep < width:
        x, h = (t.view(rows, width, -1)[:, -keep:].reshape(rows * keep, -1) for t in (x, h))
        cos, sin, mask = cos[:, -keep:], sin[:, -keep:], mask[:, :, -keep:]
    query = rotated(F.linear(h, a.q_proj.weight).view(rows, keep, heads, size), cos, sin)
    # The residual sum is part of the product: one pass over memory less.
    x = torch.addmm(x, _attention(query, key, value, mask), a.o_proj.weight.t())
    h = rms_normed(x, layer.post_attention_layernorm.weight, eps)
    h = gated(F.linear(h, m.gate_proj.weight), F.linear(h, m.up_proj.weight))
    return torch.addmm(x, h, m.down_proj.weight.t())


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Return what each query attends to: (B, Q, heads, D), (B, S, groups, D) twice -> (B Q, heads D)."""
    rows, width, heads, size = query.shape
    if heads != key.shape[2]:
        # Grouped queries: each group of heads shares a key and a value.
        key, value = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (key, value))
    # Scaled before the product, where the tensor is smaller.
    scores = torch.matmul(query.transpose(1, 2) * (1 / math.sqrt(size)), key.permute(0, 2, 3, 1)) + mask
    mixed = torch.matmul(torch.softmax(scores, -1), value.transpose(1, 2))
    return mixed.transpose(1, 2).reshape(rows * width, heads * size)


def _rotation(network: LlamaForCausalLM, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin of every position (RoPE, 2104.09864), (B or 1, T, 1, D); sin with the sign that its half
    takes."""
    # All rows alike, as without padding: one row of angles serves them by broadcasting.
    if bool((positions == positions[:1]).all()):
        positions = positions[:1]
    angles = positions[..., None, None].float() * network.model.rotary_emb.inv_freq
    cos, sin = angles.cos(), angles.sin()
    # The sign of sin is folded in, so that rotating is a roll and a fused multiply-add.
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


class _Rotation(torch.autograd.Function):
    """x (B, T, heads, D) rotated: its halves (a, b) -> (a cos - b sin, b cos + a sin)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        cos, sin = ctx.saved_tensors
        # A rotation's transpose: the angle the other way.
        return torch.addcmul(g * cos, g.roll(g.shape[-1] // 2, -1), sin, value=-1), None, None


class _RMSNorm(torch.autograd.Function):
    """x (N, H) / root mean square, times weight (1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        normed = x * scale
        # What the backward pass needs and no more: x itself is normed / scale.
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        normed, scale, weight = ctx.saved_tensors
        inner = g * weight
        # d(x / rms): the part of the gradient along x is taken off, since scaling x changes nothing.
        along = torch.linalg.vecdot(inner, normed).div_(normed.shape[-1]).unsqueeze(-1)
        return inner.addcmul_(normed, along, value=-1).mul_(scale), (g * normed).sum(0), None


class _GatedActivation(torch.autograd.Function):
    """silu(gate) * up (SwiGLU, 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(g * up, gate), F.silu(gate).mul_(g)


# Entering an autograd.Function costs as much as one of these steps, so without gradients nobody does.
def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return _Rotation.apply(x, cos, sin) if torch.is_grad_enabled() else _rotate(x, cos, sin)


def rms_normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)
    return (x * _inverse_rms(x, eps)).mul_(weight)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    return _GatedActivation.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate).mul_(up)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    return torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
