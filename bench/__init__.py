"""Reproducible measurements of this server beside its peers: `python -m bench`.

What is measured, how, and what the figures do not say stands in `README.md` here. The files, in
the order in which a run uses them: `build` (C and Go programs), `machine` (facts, pinning, quiet),
`peers` (what each server is), `launch` (how it is started and ended), `scenarios` (what is
measured), `bars` (what must hold), `report` and `plot` (what is written), `__main__` (the command
line). The servers themselves are in `servers/`, the load client is `load.c`.
"""
