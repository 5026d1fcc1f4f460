"""Options of `saaa-train concepts`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from training.debugging.llm import LlmOptions
from training.options import check


@dataclass(frozen=True, kw_only=True)
class ConceptsConfig(LlmOptions):
    """Which classes a language model shall list concepts of.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    classes: Path
    """The class names: classes.json of a run of `saaa-train egdd`, a JSON list, or one a line."""
    out: Path
    """Folder for llm_concepts.json and transcript.jsonl; what the transcript holds is not asked again."""
    count: int = 10
    """Concepts a class; 10 as published."""
    attempts: int = 3
    """How often a class is asked for when answers are of no use; the model is told why."""
    constrain: bool = True
    """Have the endpoint hold the model to the answer's JSON schema; not every endpoint can."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("count", self.count, at_least=1, at_most=100)
        check("attempts", self.attempts, at_least=1, at_most=100)

    def llm(self) -> LlmOptions:
        """The language model's options."""
        return LlmOptions(**{field.name: getattr(self, field.name) for field in fields(LlmOptions)})
