"""Who is woken when streams have something new: by a webhook, or by a record in a wake stream.

Read `machine.py` first: the rules of waking, leasing and acknowledging, without IO; `following.py`
is who follows which streams and how far they are. `service.py` is what the hub owns, with
`keeping.py` (what survives a restart, as `documents.py` writes it) and `announcing.py` (who is
told, by `webhooks.py`, where `addresses.py` lets it). `signing.py` and `tokens.py` vouch for it.
"""
