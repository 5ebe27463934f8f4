"""Upstream calls: the only room that talks to model providers.

`upstream.py` asks a provider and gives its answer as token events, which `hub.start` takes as they
are. What a provider's bytes mean is `llm`'s; what becomes of the events is the server's.
"""
