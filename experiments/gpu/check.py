"""What one GPU makes of the lab: numerics against the CPU, the ratio at step 0, tokens per second and MFU.

    python experiments/gpu/check.py                     # a few minutes on one GPU; nothing is downloaded
    python experiments/gpu/check.py --device cpu --small        # a rehearsal with tiny shapes

Every part is tried by itself: one that fails is a line of the table, not the end, and one begins only while there is
time left. Prints the table in Markdown and how many passed. The model has the shape of Qwen2.5-0.5B and random weights.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.models.precision import set_precision
from rlaif_lab.records import Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.continuous import Continuous
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.sampling.logps import with_logps

SECONDS = 400.0
END = 2


@dataclass(frozen=True)
class Sizes:
    """Of the model and of what is sampled. prompt, response: tokens. rows: batches, of four responses to a prompt."""

    layers: int = 24
    hidden: int = 896
    inner: int = 4864
    heads: int = 14
    groups: int = 2
    vocabulary: int = 151_936
    prompt: int = 128
    response: int = 128
    rows: tuple[int, ...] = (64, 256, 1024)


SMALL = Sizes(2, 64, 128, 4, 2, 512, 12, 6, (8, 16))


class Numbers:
    """Stands for a tokenizer: a prompt is the seed of its token ids."""

    pad_token_id, eos_token_id, unk_token_id, bos_token_id = 0, END, None, None
    chat_template, all_special_ids = None, (0, END)

    def __init__(self, sizes: Sizes, ragged: bool = False) -> None:
        self.sizes, self.ragged = sizes, ragged

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        rows = []
        for text in texts:
            draws = torch.Generator().manual_seed(int(text))
            length = self.sizes.prompt - (int(text) % 7 if self.ragged else 0)
            rows.append(torch.randint(3, self.sizes.vocabulary, (length,), generator=draws).tolist())
        return {"input_ids": rows}

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in rows]


@dataclass
class Check:
    """Where and how much, and what was found: name of a part -> (passed, seconds, what it says)."""

    device: torch.device
    sizes: Sizes
    limit: float = SECONDS
    begun: float = field(default_factory=time.perf_counter)
    found: dict[str, tuple[bool, float, str]] = field(default_factory=dict)
    ceiling: float = 0.0

    def run(self, name: str, part: Callable[[Check], str]) -> None:
        """Try one part. A ValueError, or whatever a library raises, is its line in the table."""
        if time.perf_counter() - self.begun > self.limit:
            self.found[name] = (False, 0.0, "no time was left")
            return
        begun = time.perf_counter()
        try:
            passed, said = True, part(self)
        except Exception as error:
            passed, said = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.found[name] = (passed, time.perf_counter() - begun, said)
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {said}", flush=True)

    def model(self, dtype: torch.dtype, ragged: bool = False) -> LanguageModel:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        sizes = self.sizes
        config = Qwen2Config(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.hidden,
            intermediate_size=sizes.inner,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.groups,
            tie_word_embeddings=True,
            eos_token_id=END,
            pad_token_id=0,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        network = Qwen2ForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")
        network = network.to(self.device).eval().requires_grad_(False)
        return LanguageModel(network, Numbers(sizes, ragged), "random")  # type: ignore[arg-type]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, engine: Any, model: LanguageModel, rows: int) -> float:
        """Return tokens per second of sampling ``rows`` responses, after a first call that is not counted."""
        config = SamplingConfig(k=4, batch_size=rows)
        engine.generate(model, prompts(1), config, 2, (0, "warm", 0))
        self.wait()
        begun = time.perf_counter()
        found = engine.generate(model, prompts(rows // 4), config, self.sizes.response, (0, "speed", 0))
        self.wait()
        return sum(len(r.token_ids) for g in found for r in g.responses) / (time.perf_counter() - begun)

    def use(self, model: LanguageModel, rate: float, flops: int = 2) -> str:
        """Return a rate in words, with the share of the device's arithmetic that it uses where that is known."""
        parameters = sum(p.numel() for p in model.network.parameters())
        share = f", MFU {flops * parameters * rate / self.ceiling:.1%}" if self.ceiling else ""
        return f"{rate:,.0f} tok/s{share}"


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(i), str(i)) for i in range(count)]


def machine(check: Check) -> str:
    """Time a product of matrices: the ceiling that MFU is a share of."""
    size = 8192 if check.device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=check.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    check.wait()
    begun = time.perf_counter()
    for _ in range(10):
        a @ b
    check.wait()
    check.ceiling = 10 * 2 * size**3 / (time.perf_counter() - begun)
    name = torch.cuda.get_device_name() if check.device.type == "cuda" else "CPU"
    return f"{name}, torch {torch.__version__}, bf16 product {check.ceiling / 1e12:.1f} TFLOP/s"


def numerics(check: Check) -> str:
    """Compare log-probabilities of this device in float32 with float64 on the CPU, and tokens of equal draws."""
    cpu = Check(torch.device("cpu"), SMALL).model(torch.float32, ragged=True)
    here = LanguageModel(copy.deepcopy(cpu.network).to(check.device), cpu.tokenizer, "here")
    config = SamplingConfig(k=4)
    there, found, again = (Exact().generate(m, prompts(32), config, 24, (0, "check", 0)) for m in (cpu, here, here))
    few = Exact().generate(here, prompts(32), SamplingConfig(k=4, batch_size=16), 24, (0, "check", 0))
    batch = pack(cpu.encode_prompts(prompts(32)), [[r.token_ids for r in g.responses] for g in there], 0)
    with inference(here.network):
        logps = response_logps(here.network, batch.to(check.device)).cpu()
    exact = copy.deepcopy(cpu.network).double()
    with inference(exact):
        error = float((logps - response_logps(exact, batch)).abs().max())
    equal = [f"{same(found, other)} {what}" for other, what in ((there, "as on the CPU"), (few, "in other batches"))]
    if error > 1e-3 or found != again:
        raise ValueError(f"|error| {error:.1e}, equal when repeated: {found == again}")
    return f"|error| {error:.1e}; bit-equal when repeated; of 128 responses {', '.join(equal)}"


def same(one: Sequence[Generation], other: Sequence[Generation]) -> int:
    pairs = (
        (a.token_ids, b.token_ids)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x.responses, y.responses, strict=True)
    )
    return sum(a == b for a, b in pairs)


def step_0(precision: str) -> Callable[[Check], str]:
    """Return a part: how far a response's log-ratio is from 0 before any training, computed as a run would."""

    def part(check: Check) -> str:
        model = check.model(torch.float32)
        set_precision(model.network, precision)
        found = Exact().generate(model, prompts(8), SamplingConfig(k=2), check.sizes.response, (0, "ratio", 0))
        recorded, packed = (
            torch.tensor([sum(r.logps) for g in some for r in g.responses])
            for some in (found, with_logps(model, found, 16))
        )
        gap = (packed - recorded).abs()
        if precision == "32-true" and float(gap.max()) > 1e-2:
            raise ValueError(f"log-ratios of responses up to {float(gap.max()):.1e} before any training")
        outside = ((packed - recorded).exp() - 1).abs() > 0.2
        return (
            f"|log-ratio| of a response {float(gap.mean()):.1e} on average, {float(outside.float().mean()):.0%} clipped"
        )

    return part


def sampling(engine: Any) -> Callable[[Check], str]:
    """Return a part: tokens per second of an engine, by batch."""

    def part(check: Check) -> str:
        model = check.model(torch.bfloat16 if check.device.type == "cuda" else torch.float32)
        rates = {rows: check.rate(engine, model, rows) for rows in check.sizes.rows}
        return "; ".join(f"{rows} rows {check.use(model, rate)}" for rows, rate in rates.items())

    return part


class Generate(Exact):
    """transformers' ``generate``, for comparison."""

    def generate(self, model: Any, prompts: Any, config: Any, limit: int, identity: Any) -> list[Generation]:
        ids = torch.tensor([row for row in model.encode_prompts(prompts) for _ in range(config.k)], device=model.device)
        with torch.no_grad():
            written = model.network.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=limit, pad_token_id=0
            )
        from rlaif_lab.records import Response

        rows = [Response("", tuple(row), (), True) for row in written[:, ids.shape[1] :].tolist()]
        return [Generation(p, tuple(rows[i * config.k : (i + 1) * config.k])) for i, p in enumerate(prompts)]


def training(check: Check) -> str:
    """Time a step of DPO on all weights, and say what memory it peaks at."""
    model = check.model(torch.bfloat16 if check.device.type == "cuda" else torch.float32)
    network = model.network.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    ids = model.encode_prompts(prompts(4))
    answers = [[(row * 8)[: check.sizes.response], (row[::-1] * 8)[: check.sizes.response]] for row in ids]
    batch = pack(ids, answers, 0).to(check.device)

    def step() -> None:
        logps = response_logps(network, batch).sum(-1)
        (-torch.nn.functional.logsigmoid(0.1 * (logps[:, 0] - logps[:, 1])).mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    check.wait()
    begun = time.perf_counter()
    step()
    step()
    check.wait()
    tokens = 2 * 4 * (check.sizes.prompt + 2 * check.sizes.response)
    said = check.use(model, tokens / (time.perf_counter() - begun), flops=6)
    if check.device.type == "cuda":
        said += f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return said


def in_vllm(check: Check) -> str:
    """Time vLLM itself, where this environment has it."""
    import tempfile

    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.inputs import TokensPrompt  # type: ignore[import-not-found]

    model = check.model(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        model.network.save_pretrained(folder)
        llm = LLM(model=folder, skip_tokenizer_init=True, gpu_memory_utilization=0.4, max_model_len=1024)
        said = []
        for rows in check.sizes.rows:
            asked = [TokensPrompt(prompt_token_ids=ids) for ids in model.encode_prompts(prompts(rows))]
            how = SamplingParams(max_tokens=check.sizes.response, ignore_eos=True, detokenize=False)
            begun = time.perf_counter()
            found = llm.generate(asked, how, use_tqdm=False)
            rate = sum(len(r.outputs[0].token_ids) for r in found) / (time.perf_counter() - begun)
            said.append(f"{rows} rows {check.use(model, rate)}")
    return "; ".join(said)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes, for a rehearsal")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="a part begins only before")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("check.py: there is no GPU here; rehearse with --device cpu --small", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    check = Check(torch.device(given.device), SMALL if given.small else Sizes(), given.seconds)
    check.run("the machine", machine)
    check.run("numerics: float32 here, float64 on the CPU", numerics)
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        check.run(f"ratio at step 0, {precision}", step_0(precision))
    check.run("sampling: engine=exact", sampling(Exact()))
    check.run("sampling: transformers' generate", sampling(Generate()))
    check.run("sampling: engine=continuous", sampling(Continuous()))
    if importlib.util.find_spec("vllm") is not None:
        check.run("sampling: vLLM", in_vllm)
    check.run("training: a step of DPO on all weights", training)
    print("\n| part | | seconds | |\n|---|---|---|---|")
    for name, (passed, seconds, said) in check.found.items():
        print(f"| {name} | {'passed' if passed else '**failed**'} | {seconds:.1f} | {said} |")
    failed = sum(not passed for passed, _, _ in check.found.values())
    print(f"\n{len(check.found) - failed} passed, {failed} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
