"""A server that samples from a model, in an environment of its own: ``python serve.py FOLDER --port 8100``.

It stands alone: nothing of the lab is imported here, so that it runs with the Python of an environment in which vLLM is
installed and the lab is not. It holds one set of weights, which has a name (``version``), and refuses to sample from
any other. Prompts come as token ids, and token ids go back.

    GET  /about                    what it holds
    POST /weights  {folder, version}
    POST /generate {version, prompts, seeds, temperature, top_p, top_k, max_tokens, stop_ids}
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What has to agree for one model's weights to be another's.
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


class RefusedError(Exception):
    """What is asked cannot be done, and why; ``code`` is the HTTP status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Transformers:
    """Plain ``generate``, one prompt after the other: slow, and everywhere."""

    def __init__(self, folder: str, dtype: str, options: dict[str, Any]) -> None:
        self.dtype = dtype
        self.load(folder)

    def load(self, folder: str) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).eval()

    def generate(self, prompts: list[list[int]], seeds: list[int], asked: dict[str, Any]) -> list[list[int]]:
        import torch

        written = []
        drawn = asked["temperature"] > 0
        how = {name: asked[name] for name in ("temperature", "top_p", "top_k")} if drawn else {}
        for ids, seed in zip(prompts, seeds, strict=True):
            # A seed for each request, so that its response does not depend on others.
            torch.manual_seed(seed)
            given = torch.tensor([ids], device=self.model.device)
            with torch.no_grad():
                found = self.model.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    do_sample=drawn,
                    max_new_tokens=asked["max_tokens"],
                    eos_token_id=asked["stop_ids"],
                    pad_token_id=asked["stop_ids"][0],
                    **how,
                )
            written.append(found[0, len(ids) :].tolist())
        return written


class Vllm:
    """vLLM in this process, a seed per request."""

    def __init__(self, folder: str, dtype: str, options: dict[str, Any]) -> None:
        from vllm import LLM  # type: ignore[import-not-found]

        settings = {"enable_prefix_caching": True, "disable_log_stats": True, "seed": 0} | options
        # Prefixes shared by prompts, and by a prompt's k samples, are computed once.
        self.llm = LLM(model=folder, dtype=dtype, **settings)

    def load(self, folder: str) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        self.llm.reset_prefix_cache()  # else prefixes of the old weights are read

    def generate(self, prompts: list[list[int]], seeds: list[int], asked: dict[str, Any]) -> list[list[int]]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt  # type: ignore[import-not-found]

        settings = [
            SamplingParams(
                temperature=asked["temperature"],
                top_p=asked["top_p"],
                top_k=asked["top_k"],
                max_tokens=asked["max_tokens"],
                stop_token_ids=asked["stop_ids"],
                seed=seed,
                # Text is the lab's business: a tokenizer of its own may decode otherwise.
                detokenize=False,
            )
            for seed in seeds
        ]
        found = self.llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], settings, use_tqdm=False)
        return [list(request.outputs[0].token_ids) for request in found]


BACKENDS = {"transformers": Transformers, "vllm": Vllm}


class Held:
    """The model, one request at a time."""

    def __init__(self, backend: str, folder: str, dtype: str, options: dict[str, Any]) -> None:
        self.lock, self.backend, self.dtype = threading.Lock(), backend, dtype
        self.shape, self.tokenizer = shape_of(folder), tokenizer_of(folder)
        self.version: str | None = version_of(folder)
        self.engine: Any = BACKENDS[backend](folder, dtype, options)

    def about(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "dtype": self.dtype,
            "version": self.version,
            "shape": self.shape,
            "tokenizer": self.tokenizer,
        }

    def take(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Load weights, unless they are held."""
        folder, version = str(asked["folder"]), str(asked["version"])
        with self.lock:
            # Another rank, or a resumed run, may have sent the same.
            if self.version == version:
                return self.about()
            if not Path(folder).is_dir():
                raise RefusedError(400, f"there is no folder {folder!r} on this server's machine")
            if version_of(folder) != version:
                raise RefusedError(400, f"{folder!r} holds other weights than version {version!r}")
            if shape_of(folder) != self.shape or tokenizer_of(folder) != self.tokenizer:
                raise RefusedError(400, f"the model in {folder!r} is not of the kind that this server was started with")
            self.version = None  # what is half loaded has no name
            self.engine.load(folder)
            self.version = version
            return self.about()

    def generate(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            # Samples of other weights would be taken for the policy's own.
            if asked["version"] != self.version:
                raise RefusedError(409, f"this server holds version {self.version!r}, not {asked['version']!r}")
            written = self.engine.generate(asked["prompts"], asked["seeds"], asked)
            return {"version": self.version, "token_ids": written}


def shape_of(folder: str) -> dict[str, Any]:
    config = json.loads((Path(folder) / "config.json").read_text())
    return {key: config.get(key) for key in SHAPE}


def tokenizer_of(folder: str) -> str:
    """Return a hash of which text each token stands for; empty without a tokenizer's file."""
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        return ""
    content = json.loads(file.read_text())
    # The vocabulary and what was added to it: which text each token stands for.
    added = [[token["id"], token["content"]] for token in content.get("added_tokens") or []]
    known = [content.get("model", {}).get("vocab"), added]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def version_of(folder: str) -> str | None:
    """Return what the weights in a folder are called, as the lab wrote it beside them."""
    file = Path(folder) / "version.txt"
    return file.read_text().strip() if file.exists() else None


def handler(held: Held) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(held.about if self.path == "/about" else None, None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer({"/weights": held.take, "/generate": held.generate}.get(self.path), body)

        def answer(self, what: Any, body: bytes | None) -> None:
            code = 200
            try:
                if what is None:
                    raise RefusedError(404, f"there is no {self.path} here")
                found = what() if body is None else what(json.loads(body))
            except RefusedError as error:
                code, found = error.code, {"error": str(error)}
            # Whatever it is, the lab is told; the server goes on.
            except Exception as error:
                code, found = 500, {"error": f"{type(error).__name__}: {error}"}
            content = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def end_with(parent: int, temporary: str | None) -> None:
    """End when the process that started this one is gone, and take its temporary folder along."""
    # Polled, which works on every system: parents that are killed send no signal.
    while os.getppid() == parent:
        time.sleep(0.5)
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve samples of a model to the lab.")
    parser.add_argument("folder", help="a model as saved by save_pretrained, with its tokenizer")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="vllm")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100, help="0: any that is free")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--options", default="{}", help="further arguments of vLLM's LLM, as JSON")
    parser.add_argument("--parent", type=int, default=0, help="process to end with")
    parser.add_argument("--temporary", help="folder to remove with it")
    parser.add_argument("--announce", help="file to write the port to, once it serves")
    arguments = parser.parse_args()
    if arguments.parent:
        threading.Thread(target=end_with, args=(arguments.parent, arguments.temporary), daemon=True).start()
    # One process: a parent that is killed then leaves no worker behind.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    held = Held(arguments.backend, arguments.folder, arguments.dtype, json.loads(arguments.options))
    server = ThreadingHTTPServer((arguments.host, arguments.port), handler(held))
    if arguments.announce:
        partial = Path(f"{arguments.announce}.tmp")
        partial.write_text(str(server.server_address[1]))
        # Renamed into place: whoever waits for the file never reads half a number.
        partial.rename(arguments.announce)
    print(f"serving on port {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
