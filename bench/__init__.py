"""Reproducible measurements of this server beside its peers: `python -m bench`.

What is measured, how, and what the figures do not say stands in `README.md` here. The files, in
the order in which a run uses them: `build` (C and Go programs, Node packages, LiteLLM), `machine`
(facts, pinning, quiet), `peers` (what each server is), `launch` (how it starts and ends), `client`
(how a load client is run), `scenarios`, `durable` and `gateway` (what is measured), `parts` (what
belongs to which report), `bars` (what must hold), `tables`, `report` and `plot` (what is written),
`__main__` (the command line). The servers themselves are in `servers/`, the load clients are
`load.c`, `append_load.c`, `catchup_load.c` and `gateway_load.c`.
"""
