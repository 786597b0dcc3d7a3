"""How responses are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SamplingConfig:
    """How responses are drawn. ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 truncate nothing.

    Truncation is applied as in transformers: temperature, then top-k, then top-p.
    temperatures: of round 0, 1, ... in place of ``temperature``; the last one holds for all later rounds.
    max_new_tokens: None takes the task's own limit. stop: strings that end a response (and are cut off).
    batch_size: rows (prompts x k) computed at once; it does not change the result.
    """

    k: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    batch_size: int = 1024
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            raise ValueError(f"sampler.stop must be a list of strings, e.g. ['{self.stop}']; got {self.stop!r}")
        object.__setattr__(self, "stop", tuple(self.stop))
        if isinstance(self.temperatures, (int, float, str)):
            raise ValueError(f"sampler.temperatures must be a list, e.g. [1.0, 0.8]; got {self.temperatures!r}")
        object.__setattr__(self, "temperatures", tuple(self.temperatures))
        for name in ("k", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampler.{name} must be at least 1; got {getattr(self, name)}")
        for temperature in (self.temperature, *self.temperatures):
            if temperature < 0:
                raise ValueError(f"sampler.temperature must be 0 (greedy) or positive; got {temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampler.top_p must lie in (0, 1]; got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"sampler.top_k must be 0 (off) or positive; got {self.top_k}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"sampler.max_new_tokens must be at least 1 or null; got {self.max_new_tokens}")
        if any(not text for text in self.stop):
            raise ValueError("sampler.stop holds an empty string, which would end every response at once")

    @property
    def untruncated(self) -> bool:
        """Tell whether what is sampled from is the model's own distribution, at temperature 1."""
        return self.temperature == 1.0 and self.top_p == 1.0 and self.top_k == 0

    def of_round(self, index: int) -> SamplingConfig:
        """Return the settings with this round's temperature."""
        if not self.temperatures:
            return self
        # The last temperature holds for all later rounds.
        return replace(self, temperature=self.temperatures[min(index, len(self.temperatures) - 1)], temperatures=())
