"""One copy of the weights with an adapter and without: the policy learns, and what it was stays as it is."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from chat_model import make_chat_model
from peft.tuners.lora.layer import Linear
from torch import Tensor

from rlaif_lab.loop.weights import PolicySnapshots
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel, hash_weights
from rlaif_lab.models.lora import LoraConfig, frozen_copy, merged_state, with_adapter
from rlaif_lab.models.lora_layer import FusedLinear
from rlaif_lab.models.packed import Packed, pack, response_logits, response_logps
from rlaif_lab.records import Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.tasks.prompts_file import PromptsFile

TASK = PromptsFile(None, 8)
PROMPTS = ["Say what the cat likes", "Hello", "Which response is better?"]
SAMPLING = SamplingConfig(k=3)
LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def plain(folder: Path) -> LanguageModel:
    return HFModel(str(folder)).load(TASK)


@pytest.fixture
def both(folder: Path) -> tuple[LanguageModel, LanguageModel]:
    return HFModel(str(folder), lora=LORA).load_trainable(TASK, seed=0)


def batch_for(model: LanguageModel) -> Packed:
    responses = [["The cat likes bread.", "No"], ["Hi", "Hello there"], ["A", "B"]]
    encoded = [model.encode_responses(group) for group in responses]
    return pack(model.encode_prompts(PROMPTS), encoded, model.pad_id)


def logits(model: LanguageModel) -> Tensor:
    with torch.no_grad():
        return response_logits(model.network, batch_for(model))


def learn(policy: LanguageModel, steps: int = 3, learning_rate: float = 0.05) -> None:
    """Steps that make the first response of each prompt likelier than the second."""
    policy.network.train()
    optimiser = torch.optim.SGD([p for p in policy.network.parameters() if p.requires_grad], lr=learning_rate)
    for _ in range(steps):
        logps = response_logps(policy.network, batch_for(policy)).sum(-1)
        (logps[:, 1] - logps[:, 0]).mean().backward()
        optimiser.step()
        optimiser.zero_grad()


# --- one copy -------------------------------------------------------------------------------------------------------
def test_an_adapter_changes_nothing_at_first(both: tuple[LanguageModel, LanguageModel], plain: LanguageModel) -> None:
    policy, base = both
    torch.testing.assert_close(logits(policy), logits(plain))
    torch.testing.assert_close(logits(base), logits(plain))
    assert base.weights_hash() == plain.weights_hash()


def test_the_weights_are_there_once(both: tuple[LanguageModel, LanguageModel]) -> None:
    policy, base = both
    own = {id(p) for p in policy.network.parameters()}
    assert all(id(p) in own for p in base.network.parameters())
    trained = {name: p for name, p in policy.network.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert sum(p.numel() for p in trained.values()) < 0.2 * sum(p.numel() for p in base.network.parameters())


def test_training_changes_the_adapter_and_nothing_else(
    both: tuple[LanguageModel, LanguageModel], plain: LanguageModel
) -> None:
    policy, base = both
    before = {name: p.detach().clone() for name, p in policy.network.named_parameters()}
    learn(policy)
    changed = {name for name, p in policy.network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in policy.network.named_parameters() if p.requires_grad}
    assert not torch.allclose(logits(policy), logits(plain), atol=1e-3)
    torch.testing.assert_close(logits(base), logits(plain))
    assert base.weights_hash() == plain.weights_hash()
    assert all(p.grad is None for p in base.network.parameters())


def test_an_adapter_learns_what_it_is_taught(both: tuple[LanguageModel, LanguageModel]) -> None:
    policy, base = both

    def preference(model: LanguageModel) -> float:
        with torch.no_grad():
            logps = response_logps(model.network, batch_for(model)).sum(-1)
        return float((logps[:, 0] - logps[:, 1]).mean())

    learn(policy, steps=10)
    assert preference(policy) > preference(base) + 1.0


def test_modes_are_their_own(both: tuple[LanguageModel, LanguageModel]) -> None:
    policy, base = both
    assert policy.network.training
    assert not base.network.training


def test_both_move_together(both: tuple[LanguageModel, LanguageModel]) -> None:
    """From device to device in a run; here from dtype to dtype, which replaces the tensors in the same way."""
    policy, base = both
    policy.network.to(torch.float64)
    own = {id(p) for p in policy.network.parameters()}
    assert all(id(p) in own and p.dtype is torch.float64 for p in base.network.parameters())


# --- in the parts of a round ----------------------------------------------------------------------------------------
def test_sampling_takes_the_weights_it_is_given(
    both: tuple[LanguageModel, LanguageModel], plain: LanguageModel
) -> None:
    policy, base = both
    learn(policy, learning_rate=0.2)
    prompts = [Prompt(text, text) for text in PROMPTS]
    of_policy, of_base, of_plain = (sample(model, prompts, SAMPLING, 6, 1, "x") for model in (policy, base, plain))
    for one, two in zip(of_base, of_plain, strict=True):  # where the weights lie in memory shows in the last bits
        assert [r.token_ids for r in one.responses] == [r.token_ids for r in two.responses]
        for a, b in zip(one.responses, two.responses, strict=True):
            assert a.logps == pytest.approx(b.logps, abs=1e-5)
    assert [g.responses[0].text for g in of_policy] != [g.responses[0].text for g in of_base]
    packed = pack(
        policy.encode_prompts(prompts), [[r.token_ids for r in g.responses] for g in of_policy], policy.pad_id
    )
    with torch.no_grad():
        logps = response_logps(policy.network.eval(), packed)
    for i, g in enumerate(of_policy):
        for j, r in enumerate(g.responses):
            assert logps[i, j, : len(r.logps)].tolist() == pytest.approx(list(r.logps), abs=1e-4)


def test_policies_of_earlier_rounds(both: tuple[LanguageModel, LanguageModel], tmp_path: Path) -> None:
    policy, base = both
    history = PolicySnapshots(policy, base, RoundStore(tmp_path), reach=1)
    assert history.as_of(0) is base
    first = logits(policy)
    learn(policy)
    second = logits(policy)
    history.keep(1)
    assert history.snapshot(1).stat().st_size < 300_000, "the adapter only"
    learn(policy)
    before = history.as_of(1)
    assert torch.equal(logits(before), second)
    own = {id(p) for p in policy.network.parameters()}
    assert sum(id(p) in own for p in before.network.parameters()) == len(list(base.network.parameters()))
    history.restart()
    torch.testing.assert_close(logits(policy), first)
    assert torch.equal(logits(before), second)
    torch.testing.assert_close(logits(base), first)


class Module(pl.LightningModule):
    """What the run's module does with a policy, as far as Lightning's checkpoints go."""

    def __init__(self, policy: LanguageModel) -> None:
        super().__init__()
        self.strict_loading = False
        self.policy = policy
        self.network = policy.network

    def training_step(self, batch: Any, index: int) -> Tensor:
        logps = response_logps(self.network, batch_for(self.policy)).sum(-1)
        return (logps[:, 1] - logps[:, 0]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)

    def train_dataloader(self) -> Iterator[int]:
        return torch.utils.data.DataLoader(range(2))  # type: ignore[return-value, arg-type]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_holds_the_adapter_and_goes_on_from_it(folder: Path, tmp_path: Path) -> None:
    def trained(steps: int, checkpoint: Path | None) -> LanguageModel:
        policy, _ = HFModel(str(folder), lora=LORA).load_trainable(TASK, seed=0)
        trainer = pl.Trainer(
            max_steps=steps, logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu"
        )
        trainer.fit(Module(policy), ckpt_path=checkpoint, weights_only=False)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return policy

    straight = trained(4, None)
    trained(2, None)
    assert (tmp_path / "2.ckpt").stat().st_size < 1_000_000
    assert all(".lora_" in k for k in torch.load(tmp_path / "2.ckpt", weights_only=False)["state_dict"])
    assert trained(4, tmp_path / "2.ckpt").weights_hash() == straight.weights_hash()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_changes_no_gradient(folder: Path, dtype: Any) -> None:
    gradients = []
    for checkpointing in (False, True):
        source = HFModel(str(folder), dtype=dtype, lora=LORA, gradient_checkpointing=checkpointing)
        policy, _ = source.load_trainable(TASK, seed=0)
        assert policy.network.get_base_model().is_activation_checkpointing == checkpointing
        response_logps(policy.network, batch_for(policy)).sum().backward()
        gradients.append([p.grad for p in policy.network.parameters() if p.requires_grad])
    assert any(float(g.abs().max()) > 0 for g in gradients[0])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_an_adapter_on_bfloat16_weights_is_trained_in_float32(folder: Path) -> None:
    policy, base = HFModel(str(folder), dtype="bfloat16", lora=LORA).load_trainable(TASK, seed=0)
    assert {p.dtype for p in policy.network.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in base.network.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(policy), logits(base))
    learn(policy, learning_rate=1e-4)
    assert not torch.equal(logits(policy), logits(base))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_what_is_added_in_one_pass_is_what_peft_adds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, tolerance: float
) -> None:
    found = []
    for ours in (True, False):
        if not ours:
            monkeypatch.setattr(FusedLinear, "forward", Linear.forward)
        policy, _ = HFModel(str(folder), dtype=dtype, lora=LORA).load_trainable(TASK, seed=0)
        assert sum(type(layer) is FusedLinear for layer in policy.network.modules()) >= 7
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.network.parameters():
            if parameter.requires_grad:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        logps = response_logps(policy.network, batch_for(policy))
        logps.sum().backward()
        gradients = [p.grad.flatten() for p in policy.network.parameters() if p.grad is not None]
        assert {g.dtype for g in gradients} == {torch.float32}
        found.append((logps.detach(), torch.cat(gradients)))
    (logps, gradient), (peft_logps, peft_gradient) = found
    torch.testing.assert_close(logps, peft_logps, rtol=tolerance, atol=tolerance)
    assert float((gradient - peft_gradient).norm() / peft_gradient.norm()) < tolerance


def test_dropout_of_the_adapter_is_off_outside_training(folder: Path) -> None:
    policy, _ = HFModel(str(folder), lora={**LORA, "dropout": 0.5}).load_trainable(TASK, seed=0)
    learn(policy)
    policy.network.train()
    assert not torch.equal(logits(policy), logits(policy))
    policy.network.eval()
    assert torch.equal(logits(policy), logits(policy))


# --- identity and saving ----------------------------------------------------------------------------------------------
def test_an_adapter_is_drawn_by_identity(plain: LanguageModel) -> None:
    def drawn(*identity: int | str) -> str:
        torch.manual_seed(len(identity))
        state = torch.get_rng_state()
        adapted = with_adapter(copy.deepcopy(plain.network), LoraConfig.of(LORA), *identity)
        assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
        return hash_weights(adapted)

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_the_saved_policy_is_the_merged_model(both: tuple[LanguageModel, LanguageModel], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy, base = both
    learn(policy)
    before = policy.weights_hash()
    policy.save(tmp_path / "policy")
    assert policy.weights_hash() == before
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert type(saved) is type(base.network)
    assert set(saved.state_dict()) == set(base.network.state_dict())
    assert hash_weights(saved) != base.weights_hash()
    again = replace(policy, network=saved.eval())
    torch.testing.assert_close(logits(again), logits(policy), atol=1e-4, rtol=1e-4)
    assert again.tokenizer.chat_template == HFModel(str(tmp_path / "policy")).load_tokenizer(TASK).chat_template


def test_the_saved_adapter_makes_the_policy_out_of_the_base(
    both: tuple[LanguageModel, LanguageModel], plain: LanguageModel, tmp_path: Path
) -> None:
    from peft import PeftModel

    policy, _ = both
    learn(policy)
    policy.save(tmp_path / "policy")
    again = PeftModel.from_pretrained(copy.deepcopy(plain.network), str(tmp_path / "policy_adapter"))
    assert torch.equal(logits(replace(policy, network=again.eval())), logits(policy))


def test_merging_adds_the_scaled_product(plain: LanguageModel) -> None:
    config = LoraConfig(r=2, alpha=6, target_modules=("q_proj",))
    adapted = with_adapter(copy.deepcopy(plain.network), config, 0)
    layer = adapted.get_base_model().model.layers[1].self_attn.q_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.5)
    merged, name = merged_state(adapted), "model.layers.1.self_attn.q_proj.weight"
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged[name], plain.network.state_dict()[name] + 3.0 * product)
    untouched = plain.network.state_dict()
    assert all(torch.equal(tensor, untouched[n]) for n, tensor in merged.items() if n != name)


def test_a_frozen_copy_shares_what_is_not_trained(plain: LanguageModel) -> None:
    network = copy.deepcopy(plain.network).requires_grad_(True)
    network.model.embed_tokens.requires_grad_(False)
    twin = frozen_copy(network)
    assert not any(p.requires_grad for p in twin.parameters())
    shared = {name for name, p in twin.named_parameters() if p is dict(network.named_parameters())[name]}
    assert shared == {"model.embed_tokens.weight"}
    assert hash_weights(twin) == hash_weights(network)
    buffer = io.BytesIO()
    torch.save(twin.state_dict(), buffer)  # still an ordinary module


# --- mistakes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 8}, "lora has no 'rank'"),
        ({"alhpa": 8}, r"lora has no 'alhpa' \(did you mean 'alpha'\?\)"),
        ({"r": -1}, r"lora\.r must be 0 \(no adapter\) or positive; got -1"),
        ({"r": 8, "alpha": 0}, r"lora\.alpha must be positive"),
        ({"r": 8, "dropout": 1.0}, r"lora\.dropout must lie in \[0, 1\)"),
        ({"r": 8, "target_modules": []}, r"lora\.target_modules must name a layer"),
    ],
)
def test_settings_are_checked_before_anything_loads(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HFModel(str(folder), lora=settings)


def test_layers_that_there_are_not_are_told(folder: Path) -> None:
    source = HFModel(str(folder), lora={"r": 4, "target_modules": ["wqkv"]})
    with pytest.raises(ValueError, match=r"lora\.target_modules=\('wqkv',\) does not fit this model"):
        source.load_trainable(TASK, seed=0)
