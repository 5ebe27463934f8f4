"""How each provider says an answer of our own: one file a dialect, values in and bytes out.

`said.py` is what is said, in pieces of about a token; a dialect's file writes it as that provider's
stream, event by event, and has the provider's words for an error; `dialects.py` lists them all.
Written from the providers' references and not with `penstock.llm.write`, so that a mistake there
cannot hide behind the same one here. No time, no network and no choice: those are `upstream.py`'s.
"""
