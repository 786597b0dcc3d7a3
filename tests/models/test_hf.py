"""Models from folders, GGUF files and the hub: checked before they load, identified by content, asked as they want."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from chat_model import make_chat_model
from torch import Tensor

from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.store.checksums import CHECKSUMS
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.prompts_file import PromptsFile

OPEN = PromptsFile(None, 8)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def gguf_file(chat_folder: Path) -> Path:
    return write_gguf(chat_folder, chat_folder.parent / "gguf" / "tiny.gguf")


@pytest.fixture
def folder(organism: LanguageModel, tmp_path: Path) -> Path:
    organism.save(tmp_path / "model")
    (tmp_path / "model" / CHECKSUMS).unlink()  # somebody's own folder, which they may edit
    return tmp_path / "model"


def write_gguf(folder: Path, file: Path, kind_of_feed_forward: gguf.GGMLQuantizationType | None = None) -> Path:
    """The chat model as llama.cpp would write it, in 16 bits: names, interleaved rotary halves, byte-level BPE.
    Or with feed-forward layers of another kind, which hold zeros."""
    model = HFModel(str(folder)).load(OPEN)
    config, tokenizer = model.network.config, model.tokenizer
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    file.parent.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    special = set(tokenizer.all_special_ids)
    kind = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))])
    writer.add_token_types([kind[i in special] for i in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)

    def interleaved(weight: Tensor, n: int) -> Tensor:
        return weight.view(n, 2, weight.shape[0] // n // 2, -1).transpose(1, 2).reshape(weight.shape)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.network.state_dict().items():
        if name == "lm_head.weight":
            continue
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, heads if "q_proj" in name else key_heads)
        if "mlp" in name and kind_of_feed_forward is not None:
            width, size = gguf.GGML_QUANT_SIZES[kind_of_feed_forward]
            blocks = np.zeros((tensor.shape[0], tensor.shape[1] // width * size), dtype=np.uint8)
            named = names.get_name(name, try_suffixes=(".weight",))
            writer.add_tensor(named, blocks, raw_dtype=kind_of_feed_forward)
            continue
        stored = tensor if tensor.dim() == 1 else tensor.half()
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def error_of(path: Path | str, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        HFModel(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folders --------------------------------------------------------------------------------------------------------
def test_a_folder_gives_back_the_model(folder: Path, organism: LanguageModel, task: Addition) -> None:
    source = HFModel(str(folder), name="mine")
    source.check(task)
    loaded = source.load(task)
    assert loaded.weights_hash() == organism.weights_hash()
    assert (loaded.name, loaded.chat, loaded.network.training) == ("mine", False, False)
    assert str(folder) in str(source)


def test_a_folders_identity_is_its_content_and_how_it_is_used(folder: Path, task: Addition) -> None:
    first = HFModel(str(folder)).identity(task)
    copy = shutil.copytree(folder, folder.parent / "copy")
    assert HFModel(str(copy)).identity(task) == first
    assert HFModel(str(copy), lora={"r": 4}, gradient_checkpointing=True).identity(task) == first
    assert HFModel(str(copy), dtype="bfloat16").identity(task) != first
    assert HFModel(str(copy), system="Be kind.").identity(task) != first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = HFModel(str(copy)).identity(task)
    assert changed != first
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert HFModel(str(copy)).identity(task) != changed


def test_what_is_no_model_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    cases = {}
    (cases.setdefault("config.json", broken("no config")) / "config.json").unlink()
    (cases.setdefault("not valid JSON", broken("half a config")) / "config.json").write_text('{"architectures"')
    (cases.setdefault("not a causal LM", broken("encoder")) / "config.json").write_text(
        '{"architectures": ["BertModel"]}'
    )
    (cases.setdefault("holds no weights", broken("no weights")) / "model.safetensors").unlink()
    (cases.setdefault("holds no tokenizer", broken("no tokenizer")) / "tokenizer_config.json").unlink()
    cases["it is a LoRA adapter"] = tmp_path / "adapter"
    cases["it holds a.gguf, b.gguf: name one with gguf_file=..."] = tmp_path / "quantised"
    for folder_of, names in (("adapter", ["adapter_config.json"]), ("quantised", ["a.gguf", "b.gguf"])):
        (tmp_path / folder_of).mkdir()
        for name in names:
            (tmp_path / folder_of / name).write_text("{}")
    for message, path in cases.items():
        assert message in error_of(path)


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"architectures": null}'])
def test_a_config_of_another_shape_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "is not a causal LM" in error_of(folder)


@pytest.mark.parametrize("path", ["/nowhere", "../nowhere", "a/b/c", "~/nowhere/x", "", "a b", "model.gguf", "a//b"])
def test_a_path_that_is_nothing_is_refused(path: str) -> None:
    assert f"model path {path!r} does not exist, and is no hub id (owner/name) either" in error_of(path)


def test_arguments_are_checked_at_once(folder: Path, gguf_file: Path) -> None:
    assert "dtype must be one of float32, bfloat16, auto; got 'float16'" in error_of(folder, dtype="float16")
    assert "chat must be auto, true or false; got 'yes'" in error_of(folder, chat="yes")
    assert "drop them or set chat=auto" in error_of(folder, chat=False, system="Be kind.")
    assert "revision is of a hub id" in error_of(folder, revision="main")
    assert "is a file already; drop gguf_file='x.gguf'" in error_of(gguf_file, gguf_file="x.gguf")
    missing = error_of(gguf_file.parent, gguf_file="other.gguf")
    assert "other.gguf' does not exist; " in missing
    assert missing.endswith("holds tiny.gguf")
    (gguf_file.parent / "not.gguf").write_text("not one")
    assert "it does not begin with GGUF" in error_of(gguf_file.parent / "not.gguf")
    (gguf_file.parent / "not.gguf").unlink()


def refusal(source: HFModel, task: Any) -> str:
    with pytest.raises(ValueError) as caught:
        source.check(task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_only_configuration_and_tokenizer_can_tell_is_told_before_weights_load(
    folder: Path, chat_folder: Path, tmp_path: Path, task: Addition
) -> None:
    assert "has no chat template; use chat=auto" in refusal(HFModel(str(folder), chat=True), task)
    assert "has no chat template" in refusal(HFModel(str(folder), system="Be kind."), task)
    assert "it has no token for one of its characters" in refusal(HFModel(str(folder)), OPEN)

    def changed(name: str, **fields: Any) -> HFModel:
        copy = Path(shutil.copytree(chat_folder, tmp_path / name))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | fields))
        return HFModel(str(copy))

    seq2seq = changed("t5", model_type="t5", architectures=["T5ForConditionalGeneration"])
    assert "its model_type is 't5'" in refusal(seq2seq, OPEN)
    endless = changed("endless")
    settings = json.loads((Path(endless.path) / "tokenizer_config.json").read_text())
    (Path(endless.path) / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    assert "has no end-of-sequence token" in refusal(endless, OPEN)
    HFModel(str(chat_folder)).check(OPEN)


def test_weights_that_cannot_be_read_are_told_in_one_sentence(chat_folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(chat_folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"nonsense")
    source = HFModel(str(broken))
    source.check(OPEN)
    with pytest.raises(ValueError, match=r"^cannot load model '.*broken': [^\n]+$"):
        source.load(OPEN)


def test_a_folder_with_a_chat_template_is_a_chat_model(chat_folder: Path) -> None:
    model = HFModel(str(chat_folder), system="Be kind.").load(OPEN)
    assert model.chat
    assert "system\nBe kind." in model.decode(model.encode_prompts(["Hi"]))[0]
    plain = HFModel(str(chat_folder), chat=False).load(OPEN)
    assert plain.decode(plain.encode_prompts(["Hi"])) == ["Hi"]


@pytest.mark.parametrize(("dtype", "found"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_are_of_the_dtype_asked_for(chat_folder: Path, tmp_path: Path, dtype: Any, found: torch.dtype) -> None:
    model = HFModel(str(chat_folder), dtype=dtype).load(OPEN)
    assert {p.dtype for p in model.network.parameters()} == {found}
    model.save(tmp_path / "saved")
    stored = HFModel(str(tmp_path / "saved"), dtype="auto").load(OPEN)
    assert stored.weights_hash() == model.weights_hash()


def test_the_head_never_reads_states_that_lie_apart(chat_folder: Path, task: Addition) -> None:
    """torch multiplies those row by row, and in bfloat16 copies the head's weights for each."""
    network = HFModel(str(chat_folder)).load(task).network
    seen: list[bool] = []
    network.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    ids = torch.arange(12).reshape(3, 4)
    with torch.no_grad():
        kept, whole = network(ids, logits_to_keep=1).logits, network(ids).logits
    assert seen == [True, True]
    torch.testing.assert_close(kept[:, 0], whole[:, -1])


def test_training_all_of_bfloat16_weights_is_warned_of(chat_folder: Path) -> None:
    with pytest.warns(UserWarning, match="rounds small updates away; use dtype=float32"):
        HFModel(str(chat_folder), dtype="bfloat16").load_trainable(OPEN, seed=0)


# --- GGUF -----------------------------------------------------------------------------------------------------------
def test_a_gguf_file_gives_the_model_that_was_written(chat_folder: Path, gguf_file: Path) -> None:
    by_path, by_name = HFModel(str(gguf_file)), HFModel(str(gguf_file.parent), gguf_file=gguf_file.name)
    original = HFModel(str(chat_folder)).load(OPEN)
    by_path.check(OPEN)
    model = by_path.load(OPEN)
    assert model.chat
    assert model.encode_prompts(["Say what the cat likes<|im_end|>"]) == original.encode_prompts(
        ["Say what the cat likes<|im_end|>"]
    )
    assert (model.eos_ids, model.pad_id) == (original.eos_ids, original.pad_id)
    ids = torch.tensor(model.encode_prompts(["Say what the cat likes"]))
    one, two = (m.network(ids).logits for m in (model, original))
    torch.testing.assert_close(one, two, atol=2e-2, rtol=0)  # the file holds 16 bits
    assert by_name.load(OPEN).weights_hash() == model.weights_hash()
    assert by_name.identity(OPEN) == by_path.identity(OPEN)
    assert gguf_file.name in str(by_path)


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q8_1, gguf.GGMLQuantizationType.I8])
def test_a_gguf_file_of_a_type_that_nothing_unpacks_is_refused_in_a_sentence(
    chat_folder: Path, tmp_path: Path, kind: gguf.GGMLQuantizationType
) -> None:
    file = write_gguf(chat_folder, tmp_path / "odd" / "odd.gguf", kind)
    with pytest.raises(ValueError, match=f"odd.gguf.*{kind.name}") as caught:
        HFModel(str(file)).check(OPEN)
    assert "\n" not in str(caught.value)


def test_a_gguf_files_identity_is_its_content(gguf_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(gguf_file, tmp_path / gguf_file.name))
    assert HFModel(str(copy)).identity(OPEN) == HFModel(str(gguf_file)).identity(OPEN)
    with copy.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert HFModel(str(copy)).identity(OPEN) != HFModel(str(gguf_file)).identity(OPEN)


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_policy_from_a_gguf_file_is_trained_and_saved_as_any_other(
    gguf_file: Path, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    policy, base = HFModel(str(gguf_file), lora=lora).load_trainable(OPEN, seed=0)
    ids = torch.tensor(policy.encode_prompts(["Hi"]))
    policy.network(ids).logits.logsumexp(-1).sum().backward()
    assert any(p.grad is not None for p in policy.network.parameters())
    policy.save(tmp_path / "policy")
    saved = HFModel(str(tmp_path / "policy"))
    saved.check(OPEN)
    assert saved.load(OPEN).weights_hash() == base.weights_hash()


# --- the hub ----------------------------------------------------------------------------------------------------------
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import json, sys
from rlaif_lab.models.hf import HFModel
from rlaif_lab.tasks.prompts_file import PromptsFile
task = PromptsFile(None, 8)
for path, revision in json.loads(sys.argv[1]):
    source = HFModel(path, revision=revision)
    try:
        source.check(task)
        print(json.dumps([source.identity(task), source.load(task).weights_hash(), str(source)]))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def test_hub_models_without_a_connection(chat_folder: Path, tmp_path: Path) -> None:
    """One is in the hub's cache, which tells its commit; another revision of it and another model are not."""
    repository = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(chat_folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    asked = [("me/tiny", None), ("me/tiny", COMMIT), ("me/tiny", "v2"), ("nobody/nothing", None)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    newest, pinned, revision, nothing = map(json.loads, done.stdout.splitlines())
    weights = HFModel(str(chat_folder)).load(OPEN).weights_hash()
    assert newest == pinned == [f"hf me/tiny@{COMMIT} float32 sdpa chat=auto", weights, "hub model me/tiny"]
    for path, message in (("me/tiny", revision), ("nobody/nothing", nothing)):
        assert message.startswith(f"model {path!r} is no folder here and not in the hub's cache")
        assert message.endswith("give the path of a folder or a GGUF file")
