"""Model providers and their clients: the only room that talks to providers.

`Gateway` is the whole of it, to be mounted. `answers.py` starts answers as streams of a hub and
joins them, `calls.py` asks providers, `relay.py` carries what they say into the log; read them in
this order. `app.py` and `endpoints/` are what clients see. `upstream.py` is one call for programs
of one's own: a provider's answer as token events, which `hub.start` takes as they are. What a
provider's bytes mean is `llm`'s; what becomes of the events is the server's.
"""

from penstock.gateway.app import Gateway

__all__ = ["Gateway"]
