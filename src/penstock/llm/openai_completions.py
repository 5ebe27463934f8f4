"""OpenAI's legacy Completions: a prompt that is continued, without messages, roles or tools.

A body is chunks with choices, as `openai_choices.py` says; a choice's `text` is what is new. vLLM,
llama.cpp, Ollama, DeepSeek (`/beta`) and Fireworks answer so too. The object is `text_completion`,
and nothing depends on it.

Sources: the provider's reference ("The completion object") and recorded streams of OpenAI and vLLM.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import Json, as_text
from penstock.llm.openai_choices import ChoicesReader

DIALECT: Final = "openai-completions"


class Reader(ChoicesReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ()

    dialect = DIALECT

    def _receive_content(self, choice: dict[str, Json]) -> None:
        # Models that think say so beside the text, where the server tells the two apart (vLLM).
        thought = as_text(choice.get("reasoning")) or as_text(choice.get("reasoning_content"))
        self._composer.reasoning(thought)
        self._composer.text(as_text(choice.get("text")))
