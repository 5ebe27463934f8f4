"""Which fields of a client's dialect may be left out when another dialect is written.

A *hint* says how the provider is to store, cache, bill, serve or report, and never what the model
is told or may answer; it is left out by name. A field that says what holds without it, too, is no
field at all. Everything else that the vocabulary has no word for is refused. The names are those of
all dialects together: none means a hint in one dialect and more than that in another.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import Json

# Fields of the body.
_HINTS: Final = frozenset(
    {
        *("store", "service_tier", "stream_options", "include", "safety_identifier", "prediction"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "cache_control"),
        *("inference_geo", "speed", "diagnostics", "user_profile_id", "workspace_id", "metadata"),
        # Of Vercel's chat and of AG-UI: the conversation's own bookkeeping.
        *("id", "trigger", "messageId", "threadId", "runId", "parentRunId", "protocolVersion"),
        *("state", "forwardedProps"),
    }
)

# Fields of anything inside it.
_INNER_HINTS: Final = frozenset(
    {
        *("cache_control", "detail", "id", "status", "annotations", "logprobs", "phase"),
        *("encryptedValue", "providerMetadata", "callProviderMetadata", "createdAt", "caller"),
        *("resultProviderMetadata", "toolMetadata", "reasoning_details"),
        *("citations", "eager_input_streaming", "display", "summary", "generate_summary"),
        "metadata",
    }
)

# What is said without being said, by field of the body.
_NEUTRAL: Final[dict[str, tuple[Json, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "background": (False,),
    "truncation": ("disabled",),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "text.verbosity": ("medium",),
    "reasoning.context": ("auto",),
    "reasoning.mode": ("standard",),
}


def is_hint(path: str) -> bool:
    """Whether the field at `path` may be left out."""
    top, dot, _ = path.partition(".")
    return top in _HINTS or (bool(dot) and path.rpartition(".")[2] in _INNER_HINTS)


def is_neutral(path: str, value: Json) -> bool:
    """Whether the field at `path` says only what holds without it."""
    return any(
        value == said and isinstance(value, bool) == isinstance(said, bool)
        for said in _NEUTRAL.get(path, ())
    )
