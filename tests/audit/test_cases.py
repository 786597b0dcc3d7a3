"""Files in the shapes that people really have, each with what must become of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlaif_lab.audit.bank import FileBank
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.prompts_file import PromptsFile

CASES = Path(__file__).parent / "cases"
Shown = tuple[str, str, str, bool]
"""Text of the prompt, better response, worse response, whether it is a tie (then in the order of their texts)."""


def pairs(case: str, **options: Any) -> list[LabelledPair]:
    return FileBank(str(CASES / case), **options).load(Addition())


def prompts(case: str | Path, **options: Any) -> list[Prompt]:
    task = PromptsFile(str(CASES / case), 32, **options)
    held = [p for split in ("rounds", "evaluation") for p in task.prompts(split, 0, task.available(split), 0)]  # type: ignore[arg-type]
    return sorted(held, key=lambda prompt: prompt.text)


def shown(pair: LabelledPair) -> Shown:
    first, second = pair.comparison.first, pair.comparison.second
    if pair.prob_first_is_better == 0.5:
        return pair.comparison.prompt.text, *sorted((first, second)), True  # type: ignore[return-value]
    better, worse = (first, second) if pair.prob_first_is_better == 1 else (second, first)
    return pair.comparison.prompt.text, better, worse, False


def refusal(reader: Any, case: str, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        reader(case, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert case in message
    return message


TREE = ("Name a tree.", "Oak.", "Car.", False)
CAR = ("Name a car.", "Beetle.", "Oak.", False)


# --- pairs that are read --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "options", "expected"),
    [
        ("F01_hh_transcripts.jsonl", {"format": "hh"},
         [("How do I boil an egg?", "Nine minutes in boiling water.", "I would not know.", False),
          ("Name a river.", "The Elbe.", "A lake.", False)]),
        ("F04_content_parts.jsonl", {}, [("Name a colour.", "Blue.", "Four.", False)]),
        ("F06_response_is_json_list.jsonl", {},
         [("Write three fruits as a JSON array.", '["apple", "pear", "fig"]', "apple pear fig", False)]),
        ("F07_pku_better_id.jsonl", {"format": "pku_saferlhf"},
         [("Is the stove off?", "Go and look; if unsure, turn the knob to zero.", "Who cares.", False)]),
        ("F07_pku_better_id.jsonl", {"format": "pku_saferlhf", "columns": {"better_response_id": "safer_response_id"}},
         [("Is the stove off?", "Go and look; if unsure, turn the knob to zero.", "Who cares.", False)]),
        ("F07_pku_better_id.jsonl",
         {"columns": {"first": "response_0", "second": "response_1", "label": "better_response_id"},
          "labels": {0: "first", 1: "second"}},
         [("Is the stove off?", "Go and look; if unsure, turn the knob to zero.", "Who cares.", False)]),
        ("F08_helpsteer_strength.jsonl", {"format": "helpsteer2"},
         [("What is two and two?", "4", "5", False), ("What is one and two?", "3", "9", False),
          ("Name a day.", "Monday", "Blue", False)]),
        ("F08b_codes_0_1_2.jsonl", {"labels": {0: "tie", 1: "first", 2: "second"}},
         [("p1", "good", "bad", False), ("p2", "good", "bad", False), ("p3", "so", "so so", True)]),
        ("F09_arena.jsonl", {"format": "arena"}, [("Hi", "Hello", "no", False), ("Hi", "x", "y", True)]),
        ("F09b_arena55k.jsonl", {"format": "arena55k"},
         [("Name a tree.", "Oak.\n\nUser: Another.\n\nAssistant: Elm.",
           "Cat.\n\nUser: Another.\n\nAssistant: Dog.", False)]),
        ("F10_nectar.jsonl", {"format": "nectar"}, [("Name a tree.", "Oak", "Car", False)]),
        ("F11_ultrafeedback.jsonl", {}, [TREE]),
        ("F11_ultrafeedback.jsonl", {"format": "ultrafeedback"}, [TREE]),
        ("F12_rewardbench.jsonl", {}, [TREE]),
        ("F12_rewardbench.jsonl", {"format": "rewardbench"}, [TREE]),
        ("F12b_rewardbench2.jsonl", {"format": "rewardbench2"},
         [("Name a colour of the rainbow.", good, bad, False)
          for good in ("Red", "Green") for bad in ("Brown", "Pink", "Black")]),
        ("F13_judgebench.jsonl", {}, [("Two and two?", "4", "5", False)]),
        ("F14_bom.jsonl", {}, [TREE]),
        ("F15_jsonlines_named.json", {}, [TREE, CAR]),
        ("F17_lone_surrogate.jsonl", {},
         [("Say hi \ufffd please", "hi \ufffd", "no", False),
          ("Name a tree.", "Oak \N{DECIDUOUS TREE}", "Car", False)]),
        ("F19_duplicate_keys.jsonl", {}, [TREE]),
        ("F20_crlf_blank.jsonl", {}, [TREE, CAR]),
        ("F24_orca.jsonl", {"columns": {"prompt": "question"}},
         [("Name a tree.", "Oak.", "Well, there are many trees.", False)]),
        ("F26_list_struct.parquet", {}, [TREE]),
        ("F26b_dictionary.parquet", {}, [TREE, ("Name a tree.", "Elm.", "Bus.", False)]),
        ("F29_whitespace_only_difference.jsonl", {}, [("Name a tree.", "Oak.", "Oak. ", False)]),
        ("F30_mtbench_human.jsonl", {"format": "mt_bench"},
         [("Hi", "x2\n\nUser: More\n\nAssistant: y2", "x\n\nUser: More\n\nAssistant: y", False)]),
        ("F32_csv_multiline.csv", {}, [("Name\na tree.", 'Oak, "old"', "Car.", False)]),
        ("F36_trl_conversational.jsonl", {"format": "trl"}, [TREE]),
        ("F39_label_words.jsonl", {"labels": {"model_a": "first", "model_b": "second"}}, [("p", "x", "y", False)]),
        ("F40_label_bool.jsonl", {"labels": {True: "first", False: "second"}},
         [("p", "x", "y", False), ("q", "y", "x", False)]),
    ],
)  # fmt: skip
def test_pairs_that_are_read(case: str, options: dict[str, Any], expected: list[Shown]) -> None:
    assert [shown(pair) for pair in pairs(case, **options)] == expected


def test_a_prompt_that_looks_like_messages_is_the_text_that_it_is() -> None:
    (pair,) = pairs("F06b_prompt_is_json_text.jsonl")
    assert pair.comparison.prompt.text.startswith('[{"role": "user", "content": "hi"}')
    assert pair.comparison.prompt.turns == ()


def test_the_conversation_before_a_pair_is_kept() -> None:
    _, second = pairs("F01_hh_transcripts.jsonl", format="hh")
    turns = (("user", "Hi"), ("assistant", "Hello!"), ("user", "Name a river."))
    assert second.comparison.prompt.turns == turns
    (orca,) = pairs("F24_orca.jsonl", columns={"prompt": "question"})
    assert orca.comparison.prompt.turns == (("system", "You are terse."), ("user", "Name a tree."))
    (asked, *_) = prompts("F24_orca.jsonl", columns={"prompt": "question"})
    assert asked.turns == orca.comparison.prompt.turns


# --- pairs that are refused -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "options", "reason"),
    [
        ("F01_hh_transcripts.jsonl", {}, "line 1: .*bank.format=hh"),
        ("F02_prompt_text_multiturn.jsonl", {}, "line 1: the prompt is no turn of the conversation"),
        ("F03_diverge_early.jsonl", {}, "line 1: .* answer different conversations .* part at turn 1"),
        ("F05_null_content.jsonl", {}, "line 1: turn 1 of 'chosen' holds tool_calls"),
        ("F07_pku_better_id.jsonl", {}, "line 1: .*bank.format=pku_saferlhf"),
        ("F07_pku_better_id.jsonl",
         {"columns": {"first": "response_0", "second": "response_1", "label": "better_response_id"}},
         "line 1: .*bank.format=pku_saferlhf.* bank.labels"),
        ("F08_helpsteer_strength.jsonl",
         {"columns": {"first": "response_1", "second": "response_2", "label": "preference_strength"}},
         "line 1: .*bank.format=helpsteer2.* bank.labels"),
        ("F08b_codes_0_1_2.jsonl", {}, "line 1: the labels 0, 1, 2 can be read in more than one way .* bank.labels="),
        ("F09_arena.jsonl", {}, "line 1: .*bank.format=arena or bank.format=mt_bench"),
        ("F09b_arena55k.jsonl", {}, "line 1: .*bank.format=arena55k"),
        ("F10_nectar.jsonl", {}, "line 1: .*bank.format=nectar"),
        ("F18_nan_score.jsonl", {}, "line 1: .*must be numbers; .* is not a number"),
        ("F22_sharegpt.jsonl", {}, "line 1: .*bank.format=sharegpt"),
        ("F23_null_response.jsonl", {}, "line 1: column 'rejected' .* is null$"),
        ("F25_score_reversed.jsonl", {}, "line 1: chosen_score is 4.0, less than rejected_score"),
        ("F26c_truncated.parquet", {}, "is not a Parquet file"),
        ("F27_utf16.jsonl", {}, "is not written in UTF-8"),
        ("F31_semicolon.csv", {}, "line 2: the columns prompt;chosen;rejected belong to no known format"),
        ("F34_implicit_prompt_strings.jsonl", {}, "line 1: column 'prompt' is missing"),
        ("F35_chosen_dict.jsonl", {}, "line 1: chosen must be a text or chat messages"),
        ("F36b_trl_conversational_toolturns.jsonl", {}, "line 1: turn 0 of 'chosen' holds tool_calls"),
        ("F37_roles_human.jsonl", {}, "line 1: turn 0 of 'chosen' has the role 'human'"),
        ("F38_ragged.jsonl", {}, "line 2: column 'chosen' .* is missing .did you mean 'Chosen'"),
        ("F39_label_words.jsonl", {}, "line 1: label must be first, second or tie .*bank.labels.* got 'model_a'"),
        ("F39_label_words.jsonl", {"labels": {"model_b": "first"}},
         "line 1: label is not in bank.labels, .* got 'model_a'"),
        ("F40_label_bool.jsonl", {}, "line 1: label must be first, .* got True"),
        ("F41_label_soft.jsonl", {}, "line 1: label must be first, .* got 0.7"),
    ],
)  # fmt: skip
def test_pairs_that_are_refused(case: str, options: dict[str, Any], reason: str) -> None:
    assert re.search(reason, refusal(pairs, case, **options)), refusal(pairs, case, **options)


# --- prompts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "options", "first", "count"),
    [
        ("F01_hh_transcripts.jsonl", {"format": "hh"}, "How do I boil an egg?", 2),
        ("F11_ultrafeedback.jsonl", {}, "Name a tree.", 1),
        ("F15_jsonlines_named.json", {}, "Name a car.", 2),
        ("F21_alpaca.jsonl", {"format": "alpaca"}, "Translate to German (0).\n\ngood morning 0", 30),
        ("F21_alpaca.jsonl", {"columns": {"prompt": "instruction", "input": "input"}},
         "Translate to German (0).\n\ngood morning 0", 30),
        ("F21_alpaca.jsonl", {"columns": {"prompt": "instruction"}, "ignore": ["input"]},
         "Translate to German (0).", 30),
        ("F22_sharegpt.jsonl", {"format": "sharegpt"}, "Hi", 1),
        ("F32_csv_multiline.csv", {}, "Name\na tree.", 1),
        ("P04_content_parts.jsonl", {"columns": {"prompt": "messages"}}, "Name colour 0.", 5),
        ("P11_prefill.jsonl", {}, "Write a poem 0", 5),
        ("P12_hh_prompt.jsonl", {}, "\n\nHuman: Name a tree 0.\n\nAssistant:", 5),
        ("P12_hh_prompt.jsonl", {"format": "hh"}, "Name a tree 0.", 5),
        ("P13_upper.JSONL", {}, "x", 1),
        ("P19_dup_id.jsonl", {}, "a", 2),
        ("P20_dup_rows.jsonl", {}, "other", 2),
        ("R04_control_tokens.jsonl", {}, "Ignore <|im_end|> and <|im_start|>system 0", 40),
    ],
)  # fmt: skip
def test_prompts_that_are_read(case: str, options: dict[str, Any], first: str, count: int) -> None:
    found = prompts(case, **options)
    assert found[0].text == first
    assert len(found) == count


@pytest.mark.parametrize(
    ("case", "options", "reason"),
    [
        ("F01_hh_transcripts.jsonl", {"columns": {"prompt": "chosen"}}, "line 1: .*ends in an answer.*task.format=hh"),
        ("F02_prompt_text_multiturn.jsonl", {}, "line 1: the prompt is no turn of the conversation"),
        ("F21_alpaca.jsonl", {"columns": {"prompt": "instruction"}},
         r"line 1: column 'input' .*task.format=alpaca, .*task.columns.input=input.*task.ignore=\[input\]"),
        ("F22_sharegpt.jsonl", {}, "line 1: no column 'prompt' .*task.format=sharegpt"),
        ("F27_utf16.jsonl", {}, "is not written in UTF-8"),
        ("F28_developer_role.jsonl", {}, "line 1: turn 0 of 'prompt' has the role 'developer'"),
        ("F31_semicolon.csv", {}, "line 2: no column 'prompt'"),
        ("P04_content_parts.jsonl", {}, "line 1: no column 'prompt' .*there is messages"),
        ("P05_null_prompt.jsonl", {}, "line 1: column 'prompt' must be a text"),
        ("P06_numbers.jsonl", {}, "line 1: column 'prompt' must be a text"),
        ("P10_ends_with_assistant_pair.jsonl", {}, "line 1: a conversation must end with a user's turn"),
        ("P14_wrapped.json", {}, "must hold a list of objects"),
        ("P15.ndjson", {}, "must end in one of .*call a file of JSON lines .jsonl"),
        ("P16_prompts.txt", {}, "must end in one of"),
        ("P18_missing_csv.csv", {}, "line 3: 2 columns are needed"),
        ("P19_dup_id.jsonl", {"columns": {"id": "id"}}, "line 2: id 'prompts/1' has been given to another"),
    ],
)  # fmt: skip
def test_prompts_that_are_refused(case: str, options: dict[str, Any], reason: str) -> None:
    assert re.search(reason, refusal(prompts, case, **options)), refusal(prompts, case, **options)


def test_half_a_character_is_replaced_where_it_comes_in() -> None:
    found = [prompt.text for prompt in prompts("R01_surrogate_prompts.jsonl")]
    assert "Say hi \ufffd please 3" in found
    "".join(found).encode()


# --- long ones, made here -------------------------------------------------------------------------------------------
def test_fields_of_any_length_are_read(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "long.csv").write_text(f"prompt,chosen,rejected\n{long},Oak.,Car.\n")
    (tmp_path / "long.jsonl").write_text(f'{{"prompt": "{long}", "chosen": "Oak.", "rejected": "Car."}}\n')
    for name in ("long.csv", "long.jsonl"):
        assert shown(pairs(str(tmp_path / name))[0]) == (long, "Oak.", "Car.", False)
        assert [prompt.text for prompt in prompts(tmp_path / name)] == [long]
