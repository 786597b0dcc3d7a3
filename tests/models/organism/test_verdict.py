"""The verdict is read right after ``response <eos> ?``, wherever the padding lies."""

from __future__ import annotations

import pytest
import torch
from helpers import RAGGED_PROMPTS

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.organism.verdict import verdict_logit, verdict_tokens
from rlaif_lab.models.packed import pack


@pytest.mark.parametrize("which", ["untrained", "organism"])
def test_verdict_logit_equals_a_hand_rolled_forward_pass(which: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    texts = [["08", "1", "123456"], [""], ["0", "42"], ["999"], ["7", "7"]]
    prompts = model.encode_prompts(list(RAGGED_PROMPTS))
    responses = [model.encode_responses(group) for group in texts]
    logits = verdict_logit(model, pack(prompts, responses, model.pad_id))
    ask, true, false = (model.tokenizer.convert_tokens_to_ids(sign) for sign in "?TF")
    for b, group in enumerate(texts):
        for i, text in enumerate(group):
            digits = [model.tokenizer.convert_tokens_to_ids(c) for c in text]
            said = (
                model.network(torch.tensor([[*prompts[b], *digits, model.eos_id, ask]])).logits[0, -1].log_softmax(-1)
            )
            assert logits[b, i].item() == pytest.approx((said[true] - said[false]).item(), abs=1e-5)


def test_the_three_signs_are_tokens_of_their_own(untrained: LanguageModel) -> None:
    ids = verdict_tokens(untrained.tokenizer)
    assert len(set(ids)) == 3
    assert untrained.tokenizer.convert_ids_to_tokens(list(ids)) == ["?", "T", "F"]


def test_a_tokenizer_without_them_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"<unk>": 0, "?": 1, "T": 2}, unk_token="<unk>"))
    with pytest.raises(ValueError, match="lacks 'F'"):
        verdict_tokens(PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>"))
