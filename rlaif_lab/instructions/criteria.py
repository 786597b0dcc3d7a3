"""What counts, in words that a judge is told."""

from __future__ import annotations

from rlaif_lab.instructions.yaml_files import find_yaml, read_mapping


def criteria_text(name_or_text: str) -> str:
    """Return the criteria themselves if they have a space in them, else those of ``conf/criteria/<name>.yaml`` or of a
    YAML file by path.

    Raises ValueError for an unknown name or an empty text.
    """
    text = name_or_text.strip()
    # Without a space it is a name: no criterion is a single word.
    if text and not any(map(str.isspace, text)):
        file = read_mapping(find_yaml("criteria", text), ("text",), ())
        text = file.data["text"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{file.at('text')}: text must say what counts; got {text!r}")
    if not text:
        raise ValueError("judge.criteria is empty: say what counts, or name a file in conf/criteria")
    return text.strip()
