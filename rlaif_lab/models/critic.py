"""The critic of PPO: a copy of the policy's body with a head that says what a state is worth."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import Packed, body_of, response_hidden
from rlaif_lab.seeding import seed_for


class Critic(nn.Module):
    """Values of states (prompt and the response so far), by weights of its own. It says 0 everywhere at first.

    model: the causal LM whose body is copied; it stays as it is. Weights are trainable where the model's are, and all
    of them if it is frozen. seed: of the head's hidden layer, the only thing drawn.
    """

    def __init__(self, model: LanguageModel, seed: int) -> None:
        super().__init__()
        self.body = copy.deepcopy(body_of(model.network))
        # A copy of gradients would take room, and mean nothing here.
        self.body.zero_grad(set_to_none=True)
        # Copied from a frozen base, as PPO's critic is: all of it is trained then.
        if not any(p.requires_grad for p in self.body.parameters()):
            self.body.requires_grad_(True)
        width = _hidden_width(model)
        # float32 whatever the body computes in: values differ by less than bfloat16 can tell apart
        self.hidden = nn.utils.skip_init(nn.Linear, width, width, dtype=torch.float32)
        self.out = nn.utils.skip_init(nn.Linear, width, 1, dtype=torch.float32)
        # A generator of its own: drawing here must not shift any other draw.
        generator = torch.Generator().manual_seed(seed_for(seed, "critic"))
        nn.init.normal_(self.hidden.weight, std=width**-0.5, generator=generator)
        # The output is 0 at first, so that the first advantages are the rewards themselves and not noise.
        for zero in (self.hidden.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(zero)
        self.to(model.device)

    def forward(self, packed: Packed) -> Tensor:
        return self.values(packed)

    def values(self, packed: Packed) -> Tensor:
        """Return the value of the state before each response token, 0 on padding: (B, n, R)."""
        # The state before token t is that of position t - 1; the last state predicts nothing. (B, n, R, H).
        states = response_hidden(self.body, packed)[:, :, :-1].to(self.out.weight.dtype)
        # A hidden layer, since a policy's states are made to predict tokens, not worth.
        values = self.out(torch.tanh(self.hidden(states))).squeeze(-1)
        return values.float() * packed.response_mask


def _hidden_width(model: LanguageModel) -> int:
    """Return the width of the body's states, which a projection after the last layer may make other than
    ``hidden_size``."""
    head = model.network.get_output_embeddings()
    return int(head.weight.shape[1] if head is not None else model.network.config.get_text_config().hidden_size)
