"""What judges that prompt a model on this machine have in common: whose weights, and its chat template."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from rlaif_lab.instructions.template import Message
from rlaif_lab.instructions.thoughts import open_thought
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.prompted.chat_form import ChatForm
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.models.limits import positions
from rlaif_lab.records import Prompt, Response, Score, Verdict
from rlaif_lab.sampling.engine import sample

ANSWER_TOKENS = 32
"""Room for a sampled answer without reasons. One that is cut off is no verdict, so that it must hold a short one."""

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.sampling.config import SamplingConfig


@dataclass(frozen=True)
class Asked:
    """Chat turns put to a judge. id: what decides the draws when an answer is sampled. path: where it stands among
    others that begin alike (see shared_prefix.read_next)."""

    id: str
    messages: tuple[tuple[str, str], ...]
    path: tuple[str, ...]

    @classmethod
    def of(cls, messages: Sequence[Message], *path: str) -> Asked:
        turns = tuple((message["role"], message["content"]) for message in messages)
        # By content: equal questions are one, and their sampled answers are the same whoever asks.
        return cls(hashlib.sha256(repr(turns).encode("utf-8", "surrogatepass")).hexdigest()[:32], turns, path)


@dataclass(frozen=True)
class Words:
    """Several answers to one question. cut: of each one, whether the limit on its length stopped it. opened: whether
    they begin within a thought, which the chat template opened."""

    texts: list[str]
    cut: list[bool]
    opened: bool = False

    @classmethod
    def of(cls, answers: Words | Sequence[str]) -> Words:
        return answers if isinstance(answers, Words) else cls(list(answers), [False] * len(answers))


Said = TypeVar("Said", Verdict, Score)
Reader = Callable[["LanguageModel", list[Asked], list[Prompt], list[list[int]]], tuple[list[Said], int]]
"""(model, questions, as prompts, as token ids) -> what was said to each, and the tokens processed."""


class LocalJudge(Judge):
    """An instruct model that is asked by its chat template.

    weights: ``live``, ``previous`` or ``initial`` for the policy's own, else where another model comes from.
    """

    writes = True

    def __init__(self, weights: PolicyWeights | ModelSource, batch_size: int, name: str) -> None:
        if isinstance(weights, str) and weights not in get_args(PolicyWeights):
            raise ValueError(
                f"judge.weights must be one of {', '.join(get_args(PolicyWeights))}, or the source of another "
                f"model (a mapping with _target_); got {weights!r}"
            )
        if batch_size < 1:
            raise ValueError(f"judge.batch_size must be at least 1; got {batch_size}")
        self.weights, self.batch_size, self.name = weights, batch_size, name

    def check_tokenizer(self, tokenizer: Any, model: str) -> None:
        """Raise ValueError when verdicts cannot be had with this tokenizer."""
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"judge {self.name!r} asks its model by a chat template, and model {model!r} has none: take an "
                "instruct model, or judge by likelihood (judge=self, judge.reads=mean_logp)"
            )

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        """Check the same before any weights load, with tokenizers alone."""
        name = "policy" if isinstance(self.weights, str) else self.weights.name
        self.check_tokenizer(tokenizer_of(self.weights), name)

    def attach(self, context: JudgeContext) -> None:
        self.context, self.seed = context, context.seed
        # Hashes of frozen weights and the template's form are found out when first needed, and kept.
        self._frozen_hash: str | None = None
        self._form: ChatForm | None = None
        if isinstance(self.weights, str):
            model = context.policy("live")
        else:
            model = self.other = context.load(self.weights)
        self.tokenizer = model.tokenizer
        self.check_tokenizer(model.tokenizer, model.name)

    def sources(self) -> list[ModelSource]:
        return [] if isinstance(self.weights, str) else [self.weights]

    def needs_previous_policy(self) -> bool:
        return self.weights == "previous"

    def language_model(self) -> LanguageModel:
        """Return the judging weights as of now."""
        if isinstance(self.weights, str):
            return self.context.policy(self.weights)
        # The policy may have moved to a GPU since this model was loaded.
        self.other.network.to(self.context.policy("live").device)
        return self.other

    def weights_hash(self) -> str:
        """Return the hash of the weights as of now; those that never change are hashed once."""
        if self.weights in ("live", "previous"):
            return self.language_model().weights_hash()
        if self._frozen_hash is None:
            self._frozen_hash = self.language_model().weights_hash()
        return self._frozen_hash

    def asking_identity(self) -> list[str]:
        """Return the weights, and how the model is asked."""
        model = self.language_model()
        # Chat template and its options decide what the model reads, so they are part of who judges.
        chat = hashlib.sha256(repr((model.tokenizer.chat_template, dict(model.chat_options))).encode()).hexdigest()
        return [type(self).__name__, self.weights_hash(), chat[:16]]

    def describe_weights(self) -> str:
        return f"the policy's own {self.weights} weights" if isinstance(self.weights, str) else str(self.weights)

    # --- asking -------------------------------------------------------------------------------------------------
    def ask(self, questions: Sequence[Asked], kind: type[Said], spare: int, read: Reader[Said]) -> list[Said]:
        """Return one verdict or score per question; equal questions are asked once, and those that leave fewer than
        ``spare`` tokens to answer in are not asked at all. Time and tokens are shared out evenly."""
        start = time.perf_counter()
        # Equal questions are asked once.
        distinct = list({question.id: question for question in questions}.values())
        model = self.asked_model()
        prompts = self.prompts(model, distinct)
        encoded = model.encode_prompts(prompts)
        # A failure from the start: what is not asked has its reason already.
        found: dict[str, Said] = {
            question.id: kind(None, "invalid", raw=f"(not asked: the judge prompt of {len(ids)} tokens is too long)")
            for question, ids in zip(distinct, encoded, strict=True)
        }
        fitting = _fitting(model, encoded, spare)
        tokens = 0
        if fitting:
            said, tokens = read(
                model, [distinct[i] for i in fitting], [prompts[i] for i in fitting], [encoded[i] for i in fitting]
            )
            found.update({distinct[i].id: one for i, one in zip(fitting, said, strict=True)})
        # Even shares: how long one question of a batch took is not known.
        latency = (time.perf_counter() - start) / max(1, len(questions))
        # The remainder goes to the first questions, so that the sum is what was processed.
        each, rest = divmod(tokens, max(1, len(questions)))
        return [replace(found[q.id], latency_s=latency, tokens=each + (i < rest)) for i, q in enumerate(questions)]

    def asked_model(self) -> LanguageModel:
        """Return the model as it is asked: by its chat template, told nothing but what the judge's template says."""
        # `system=None`: a policy's system prompt must not instruct the judge.
        return replace(self.language_model(), chat=True, system=None)

    def prompts(self, model: LanguageModel, asked: Sequence[Asked]) -> list[Prompt]:
        """Return the judge prompts as conversations. For a chat template that refuses a system turn, or leaves it out,
        what it says goes in front of the user's."""
        system = self.form(model).system
        merged = [a.messages if system else _merged(a.messages) for a in asked]
        return [Prompt(a.id, turns[-1][1], turns) for a, turns in zip(asked, merged, strict=True)]

    def form(self, model: LanguageModel) -> ChatForm:
        """Return what the model's chat template does with a question; seen once, since only weights change."""
        if self._form is None:
            self._form = ChatForm.of(model)
        return self._form

    def begun(
        self, model: LanguageModel, encoded: Sequence[list[int]], said: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Return the token ids up to where the verdict's cue goes: behind what the model has ``said``, and out of any
        thought."""
        form = self.form(model)
        if said is None:
            # A model that thinks first would put its verdict after its thoughts: an opened thought is closed before the
            # cue.
            ends = form.closing_ids(model.tokenizer)
            return [[*ids, *ends] for ids in encoded]
        rows = []
        # A blank line after its own words, so that the cue does not continue a sentence; no end token.
        more = model.encode_responses([f"{text}\n\n" for text in said], [False] * len(said))
        for ids, text, spoken in zip(encoded, said, more, strict=True):
            mark = open_thought(form.begins + text)
            ends = [] if mark is None else ChatForm(form.system, f"{mark}\n\n").closing_ids(model.tokenizer)
            rows.append([*ids, *spoken, *ends])
        return rows

    def words(self, model: LanguageModel, responses: Sequence[Response]) -> Words:
        """Return what sampled answers say, control tokens that mark thoughts included."""
        # Marks of thoughts are control tokens: decoding without them would leave a thought that nothing marks as one.
        special = set(model.tokenizer.all_special_ids)
        ends = {*model.eos_ids, model.pad_id}
        # End and padding are control tokens too, and no words.
        texts = []
        for response in responses:
            ids = [token for token in response.token_ids if token not in ends]
            marked = bool(special.intersection(ids))
            texts.append(model.tokenizer.decode(ids, skip_special_tokens=False) if marked else response.text)
        return Words(texts, [not r.finished for r in responses], bool(self.form(model).closing))

    def answers(
        self, model: LanguageModel, prompts: Sequence[Prompt], config: SamplingConfig, tokens: int
    ) -> list[tuple[Response, ...]]:
        """Return ``config.k`` sampled answers to each judge prompt, decided by the run's seed and the prompt."""
        from rlaif_lab.sampling.exact import Exact

        # Whatever samples the policy's words samples the judge's; outside a run, the lab's own.
        engine = self.context.engine or Exact()
        return [
            g.responses
            for g in sample(engine, model, prompts, config=config, limit=tokens, identity=(self.seed, "judge"))
        ]


def conversation_key(prompt: Prompt) -> str:
    """Return a key that is equal for prompts that a judge is shown alike."""
    return repr((prompt.text, prompt.turns))


def _fitting(model: LanguageModel, encoded: Sequence[Sequence[int]], spare: int) -> list[int]:
    """Return which of these prompts leave ``spare`` tokens of what the model can see at once."""
    # None: the configuration gives no bound (see models/limits.py).
    room = positions(model.network.config)
    return [i for i, ids in enumerate(encoded) if room is None or len(ids) + spare <= room]


def _merged(turns: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    # Some templates take no system turn: what it says goes in front of the first question.
    if len(turns) > 1 and turns[0][0] == "system":
        return (("user", f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:])
    return turns
