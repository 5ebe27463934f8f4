"""The servers under measurement, one file each, all doing the same: publish to every subscriber.

They share a contract and no code (but for the two in Python, which share `pacing`): settings come
from `BENCH_*` in the environment, the publisher starts at SIGUSR2, readiness is one JSON line with
`port` and `pid`, and an event is `id: <ten characters>` and one `data:` line with a JSON object of
`BENCH_PAYLOAD_BYTES` bytes that begins with the time `t` and a running number `i`.
"""
