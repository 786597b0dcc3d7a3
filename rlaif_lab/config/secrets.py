"""Keys in the wrong place: seen before anything is written, and never repeated.

An API key belongs in an environment variable, whose *name* goes to ``judge.api_key_env``. What is looked at: the
command line, the YAML files of the user's own config folders, and the composed config.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

WHERE = (
    "keys belong in an environment variable, whose NAME goes to judge.api_key_env (W&B's in WANDB_API_KEY, Hugging "
    "Face's in HF_TOKEN). Nothing was written; the key may still be in your shell's history"
)

KEY_LIKE = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{8,}|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,}"
    r"|xai-[A-Za-z0-9]{16,}|nvapi-[A-Za-z0-9_-]{16,}|r8_[A-Za-z0-9]{16,}|pplx-[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{12,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|ya29\.[A-Za-z0-9._-]{16,}|sess-[A-Za-z0-9]{16,}|(?:dop|tgp|glc)_v1_[A-Za-z0-9]{16,}"
    r"|(?:fw|sk)_[A-Za-z0-9]{16,}|key-[0-9a-f]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.|wandb_v1_[A-Za-z0-9_]{16,}"
    r")|\bBearer\s+[A-Za-z0-9._~+/=-]{8,}"
)
"""Keys by the shapes that services give them."""

NAMED = re.compile(
    r"(?:^|[_.\-])(?:api_?key|apikey|key|token|access_?token|secret|password|passwd|authorization|auth|credentials?"
    r"|cookie)$",
    re.IGNORECASE,
)
"""Names of settings (and of parts of an address) that hold a key."""

SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)")
NAME_OF_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\",]+")
HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")


class Refused(BaseException):
    """A config that Hydra may not go on with. No ``Exception``, since Hydra's callbacks only warn of those."""


def problem(key: str, value: str) -> str | None:
    """Return what is wrong with a setting that holds a key, without the key; None where it holds none."""
    # The last part of a dotted or grouped key is the setting's own name.
    last = key.rpartition(".")[2].rpartition("/")[2]
    # The name of a variable is wanted here: a key in its place is refused without being repeated.
    if (last == "api_key_env" or last.endswith("_key_env")) and value not in ("", "null", "None"):
        if not _is_name(value) or KEY_LIKE.search(value) or _random_looking(value):
            return f"{_printable(key)} is the NAME of an environment variable, and what it was given is none"
        return None
    if NAMED.search(last) and value not in ("", "null", "None"):
        return f"{_printable(key)} would hold a key"
    # OmegaConf would put the variable's content into config.json.
    for name in ENVIRONMENT.findall(value):
        if SECRET_VARIABLE.search(name):
            return f"{_printable(key)} would hold the content of the environment variable {name}"
    # By its shape, or because it is the content of a variable that is named like a key.
    if KEY_LIKE.search(value) or _of_environment(value):
        return f"{_printable(key)} holds what looks like a key"
    # W&B's old keys are 40 hexadecimal digits, as git's commits are: refused only where no commit is expected.
    if HEX.search(value) and last in ("entity", "project", "mode", "tags", "arm", "experiment_name", "name", "model"):
        return f"{_printable(key)} holds what looks like a key of W&B"
    for address in ADDRESS.findall(value):
        if _address_holds_key(address):
            return f"{_printable(key)} is an address with a password or key in it"
    return None


def _is_name(value: str) -> bool:
    """Return whether a text names an environment variable: by convention in capitals, or with a word that says so, or
    because there is one."""
    likely = value.isupper() or value in os.environ or re.search("key|token|secret|api|auth", value, re.IGNORECASE)
    return NAME_OF_VARIABLE.fullmatch(value) is not None and bool(likely)


def _printable(key: str) -> str:
    """Return a key's name, unless a key hides in it."""
    # The key's name may hold the key itself, when something was left out in typing.
    clean = KEY_LIKE.sub("...", key)
    return clean if len(clean) <= 100 and clean.isprintable() and not _of_environment(key) else "a setting"


def _random_looking(value: str) -> bool:
    """Return whether a name is rather a key: long, with lower case and digits mixed."""
    # Changes between letters, digits and cases: names that people give have few.
    changes = len(re.findall(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])|[a-z](?=[A-Z])", value))
    return len(value) >= 20 and changes >= 4


def _of_environment(value: str) -> bool:
    """Return whether a text holds the content of an environment variable that is named like a key."""
    # Short contents ("1", "true") would be found in any text.
    return any(
        SECRET_VARIABLE.search(name) and len(content) >= 8 and content in value for name, content in os.environ.items()
    )


def _address_holds_key(address: str) -> bool:
    try:
        parts = urlsplit(address)
        # http://user@host: some services take a token for the user's name.
        if parts.password or (parts.username and parts.scheme.startswith("http")):
            return True
        named = [*parse_qsl(parts.query, keep_blank_values=True), *parse_qsl(parts.fragment, keep_blank_values=True)]
        return any(NAMED.search(name) and text for name, text in named)
    except ValueError:
        return False


def check_arguments(arguments: Sequence[str]) -> None:
    """Look at a command line. Raises ValueError that says where keys belong."""
    for argument in arguments:
        key, separator, value = argument.partition("=")
        # Without an equals sign it may be a key that was pasted.
        found = problem(key.lstrip("+~"), value.strip("'\"")) if separator else problem("an argument", argument)
        if found is None:  # mappings and lists on the command line: {Authorization: ...}
            inside = any(bracket in value for bracket in "{[")
            pairs = re.findall(r"['\"]?([A-Za-z_][\w-]*)['\"]?\s*:\s*['\"]?([^,}'\"\]]+)", value) if inside else []
            found = next((p for name, text in pairs if (p := problem(f"{key.lstrip('+~')}.{name}", text))), None)
        if found is not None:
            raise ValueError(f"{found}: {WHERE}")


def check_files(folders: Sequence[Path]) -> None:
    """Look at the YAML files of the user's own config folders, of which Hydra would copy what is composed."""
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                # Line by line, without reading YAML: a file that YAML refuses may hold a key all the same.
                key, separator, value = line.partition("#")[0].partition(":")
                if separator and (found := problem(key.strip(" -'\""), value.strip(" '\""))):
                    raise ValueError(f"{file}, line {number}: {found}: {WHERE}")


def check_config(content: Mapping[str, Any]) -> None:
    """Look at a composed and resolved config. Raises ValueError that says where keys belong."""
    for key, value in _texts(content, ""):
        if found := problem(key, value):
            raise ValueError(f"{found}: {WHERE}")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _texts(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child, path)
