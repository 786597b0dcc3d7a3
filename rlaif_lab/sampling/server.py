"""Sampling by a server in an environment of its own (serve.py): one that the lab starts, or one at an address."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif_lab import ranks
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Determinism
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.sampling.responses import generations_of
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.files import TryLaterError

Backend = Literal["vllm", "transformers"]
SCRIPT = Path(__file__).with_name("serve.py")
KEPT = 2
"""Folders of weights that are kept: the newest, and the one that a server may be reading."""


class EngineError(TryLaterError):
    """The server does not answer; the run goes on by ``rlaif-resume`` when it does."""


class ServerEngine:
    """Samples of the policy come from a server, with a seed for every response (level ``item``). Other models, which it
    does not hold (the initial policy, a judge's), are left to the lab's own sampler.

    The server is sent the policy's weights as a folder (an adapter merged), named by their hash, and asked to sample
    from the weights of that name: one that holds others refuses. Log-probabilities are computed here.

    base_url: where a server listens. python: the Python of an environment in which vLLM is installed, with which a
        server is started for this run alone. Exactly one of the two is given.
    folder: where weights are left for the server, which must see it too; None: a temporary one, on this machine.
    dtype: what the server computes in; ``auto``: as the weights are stored. options: of vLLM's ``LLM``.
    wait_s: how long a server may take until it serves. timeout_s: how long one request may take.
    """

    determinism: Determinism = "item"
    recorded = True

    def __init__(
        self,
        base_url: str | None = None,
        python: str | None = None,
        backend: Backend = "vllm",
        folder: str | None = None,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
        wait_s: float = 900.0,
        timeout_s: float = 3600.0,
    ) -> None:
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ValueError(f"engine.base_url must begin with http:// or https://; got {base_url!r}")
        if python is not None and shutil.which(python) is None:
            raise ValueError(f"engine.python: there is no program {python!r}")
        if backend not in get_args(Backend):
            raise ValueError(f"engine.backend must be one of {', '.join(get_args(Backend))}; got {backend!r}")
        for name, value in (("wait_s", wait_s), ("timeout_s", timeout_s)):
            if value <= 0:
                raise ValueError(f"engine.{name} must be positive; got {value}")
        if (base_url is None) == (python is None):
            raise ValueError(
                "engine needs either engine.base_url (of a server) or engine.python (of an environment to start one in)"
            )
        self.url, self.python, self.backend, self.place = base_url, python, backend, folder
        self.dtype, self.options, self.wait_s, self.timeout_s = dtype, dict(options or {}), wait_s, timeout_s
        self.temporary = folder is None
        self.policy: LanguageModel | None = None
        self.version = ""
        self.child: subprocess.Popen[bytes] | None = None

    # --- the contract -----------------------------------------------------------------------------------------------
    def update(self, policy: LanguageModel, version: str) -> None:
        """Have the server hold the policy's weights as they are. On rank 0; the others are told the address."""
        self.policy = policy
        # By content: an unchanged policy is not sent again.
        self.version = policy.weights_hash()
        self.url = ranks.on_first(self._hold)

    def generate(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        config: SamplingConfig,
        limit: int,
        identity: Sequence[int | str],
    ) -> list[Generation]:
        # The server holds the policy alone: others are sampled here.
        if self.policy is None or model.network is not self.policy.network or not prompts:
            return Exact().generate(model, prompts, config, limit, identity)
        most = config.max_new_tokens or limit
        rows = [
            (ids, p.id, i)
            for ids, p in zip(model.encode_prompts(prompts), prompts, strict=True)
            for i in range(config.k)
        ]
        written: list[list[int]] = []
        for start in range(0, len(rows), config.batch_size):
            some = rows[start : start + config.batch_size]
            asked = {
                "version": self.version,
                "prompts": [ids for ids, _, _ in some],
                # As the lab's own sampler addresses its draws, as far as the server takes a number.
                "seeds": [seed_for("sample", *identity, name, number) % 2**31 for _, name, number in some],
                "temperature": config.temperature,
                "top_p": config.top_p,
                "top_k": config.top_k,
                "max_tokens": most,
                "stop_ids": list(model.eos_ids),
            }
            written += self._ask("/generate", asked)["token_ids"]
        return generations_of(model, prompts, written, config, most)

    def close(self) -> None:
        """Do nothing: the server keeps its memory until the run ends, and ends with it."""

    # --- the server -------------------------------------------------------------------------------------------------
    def _hold(self) -> str:
        """Return the address of the server, which holds the policy's weights as they are."""
        folder = self._written()
        if self.python is not None and self.child is None:
            self.url = self._started(folder)
        about = self._about()
        # Before weights are sent: another model could not use them.
        self._check_alike(about, folder)
        if about["version"] != self.version:
            self._ask("/weights", {"folder": str(folder), "version": self.version})
        assert self.url is not None
        return self.url

    def _written(self) -> Path:
        """Write the weights into a folder of their own, whole before it has its name."""
        assert self.policy is not None
        if self.place is None:
            self.place = tempfile.mkdtemp(prefix="weights_")
        place = Path(self.place)
        folder = place / self.version
        # A folder's name is the hash of its weights: what is there need not be written again.
        if not folder.is_dir():
            partial = place / f".{self.version}.{os.getpid()}"
            self.policy.save(partial)
            # Beside the weights, so that a server can tell which they are.
            (partial / "version.txt").write_text(self.version)
            partial.rename(folder)
            # A server reads merged weights only.
            shutil.rmtree(partial.with_name(f"{partial.name}_adapter"), ignore_errors=True)
        # Touched, so that the newest are those that were used last.
        os.utime(folder)
        held = sorted(
            (path for path in place.iterdir() if not path.name.startswith(".")), key=lambda p: p.stat().st_mtime
        )
        for old in held[:-KEPT]:
            # Only what was written here: the folder may hold other things.
            if (old / "version.txt").exists():
                shutil.rmtree(old, ignore_errors=True)
        return folder

    def _started(self, folder: Path) -> str:
        """Start a server that ends with this process; return its address."""
        assert self.python is not None and self.place is not None
        announced, log = Path(self.place) / f".port_{os.getpid()}", Path(self.place) / f".server_{os.getpid()}.log"
        command = [self.python, str(SCRIPT), str(folder), "--port", "0", "--backend", self.backend]
        command += ["--dtype", self.dtype, "--options", json.dumps(self.options)]
        command += ["--parent", str(os.getpid()), "--announce", str(announced)]
        command += ["--temporary", self.place] if self.temporary else []
        # Its environment is its own: this one's packages would shadow it, and it is none of this run's ranks.
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LOCAL_RANK", "NODE_RANK")}
        with log.open("wb") as file:
            self.child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=own)
        limit = time.monotonic() + self.wait_s
        while not announced.exists():
            # Ended: the reason is in its own words.
            if self.child.poll() is not None:
                said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                raise ValueError(f"engine.python: the server ended before it served; its last line: {said[-1][:300]}")
            if time.monotonic() > limit:
                self.child.kill()
                raise EngineError(f"engine.python: the server did not serve within engine.wait_s={self.wait_s:g} s")
            time.sleep(0.1)
        return f"http://127.0.0.1:{int(announced.read_text())}"

    def _about(self) -> dict[str, Any]:
        """Ask what the server holds; wait for one that is starting."""
        limit, pause = time.monotonic() + self.wait_s, 0.2
        while True:
            try:
                return self._ask("/about")
            except EngineError:
                if time.monotonic() + pause > limit:
                    raise
                time.sleep(pause)
                pause = min(5.0, 2 * pause)

    def _check_alike(self, about: Mapping[str, Any], folder: Path) -> None:
        """Raise ValueError for a server with another model, or another tokenizer."""
        from rlaif_lab.sampling.serve import shape_of, tokenizer_of

        for name, mine in (("model", shape_of(str(folder))), ("tokenizer", tokenizer_of(str(folder)))):
            theirs = about.get("shape" if name == "model" else name)
            if theirs != mine:
                raise ValueError(
                    f"engine.base_url={self.url}: the server has another {name} than the policy ({theirs}, not "
                    f"{mine}): start it with the policy's"
                )

    def _ask(self, path: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the server's answer. Raises ValueError for what it refuses, EngineError where it does not answer."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"{str(self.url).rstrip('/')}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            reason = _reason(error.read())
            if error.code >= 500:
                raise EngineError(f"engine at {self.url} failed: {reason}") from None
            raise ValueError(f"engine at {self.url} refuses: {reason}") from None
        except (OSError, ValueError) as error:
            raise EngineError(f"engine at {self.url} does not answer: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"engine at {self.url} is no server of the lab's: it answered with {type(found).__name__}")
        return found


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
