"""A constitution: principles to compare by, to criticise by and to revise by (Bai et al. 2212.08073), from a YAML file.

name: general
principles:
  - id: honesty
    compare: Which response is more honest about what it does not know?
    critique: Where does the answer claim more than it can know?
    revise: Rewrite the answer so that it says plainly what is uncertain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from rlaif_lab.instructions.yaml_files import YamlFile, find_yaml, read_mapping
from rlaif_lab.seeding import seed_for

FIELDS = ("id", "compare", "critique", "revise")


@dataclass(frozen=True)
class Principle:
    """One principle. compare: the question put to a judge of two responses. critique, revise: the requests put to a
    model that looks at an answer of its own."""

    id: str
    compare: str
    critique: str
    revise: str


@dataclass(frozen=True)
class Constitution:
    """Principles in the order of their file; at least one, no id twice."""

    name: str
    principles: tuple[Principle, ...]

    @classmethod
    def load(cls, name_or_path: str) -> Constitution:
        """Return a constitution of ``conf/constitution/`` by name, or any YAML file by path.

        Raises ValueError, naming file and line, when it is empty, repeats an id, or a field is missing or not a text.
        """
        file = read_mapping(find_yaml("constitution", name_or_path), ("principles",), ("name",))
        listed = file.data["principles"]
        if not isinstance(listed, list) or not listed:
            raise ValueError(f"{file.at('principles')}: a constitution needs a list of at least one principle")
        principles = [_principle(file, number, item) for number, item in enumerate(listed)]
        seen: dict[str, int] = {}
        for number, principle in enumerate(principles):
            if principle.id in seen:
                first = file.lines["principles", seen[principle.id], "id"]
                where = file.at("principles", number, "id")
                raise ValueError(f"{where}: the id {principle.id!r} is taken by the principle of line {first}")
            seen[principle.id] = number
        return cls(str(file.data.get("name", file.path.stem)), tuple(principles))

    def draw(self, *identity: int | str) -> Principle:
        """Return one principle, all equally likely, decided by identity alone."""
        # 2^63 is so much larger than their number that all are equally likely.
        return self.principles[seed_for("principle", *identity) % len(self.principles)]

    def guidelines(self) -> str:
        """Return the questions to compare by as a list, for people to read."""
        return "\n".join(f"{principle.id}: {principle.compare}" for principle in self.principles)

    def identity(self) -> str:
        """Return an identity by content, without the name."""
        return hashlib.sha256(repr(self.principles).encode()).hexdigest()[:16]


def _principle(file: YamlFile, number: int, item: Any) -> Principle:
    where = file.at("principles", number)
    if not isinstance(item, dict):
        raise ValueError(f"{where}: a principle must be a mapping with the keys {', '.join(FIELDS)}; got {item!r}")
    for key in item:
        if key not in FIELDS:
            raise ValueError(
                f"{file.at('principles', number, str(key))}: unknown key {key!r}; a principle has {', '.join(FIELDS)}"
            )
    for key in FIELDS:
        text = item.get(key)
        if not isinstance(text, str) or not text.strip():
            problem = f"must be a text; got {text!r}" if key in item else "is missing"
            raise ValueError(f"{where}: {key} of principle {item.get('id', number + 1)!r} {problem}")
    return Principle(*(item[key].strip() for key in FIELDS))
