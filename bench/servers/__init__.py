"""The servers under measurement, one file each.

Each says that it is ready with one JSON line with `port` and `pid`. They share no code, but for
those in Python, which share `pacing`. Some keep what is sent to them, in memory or in the folder
`BENCH_FOLDER`.

The others all do the same: publish to every subscriber. Settings come from `BENCH_*` in the
environment, the publisher starts at SIGUSR2, and an event is `id: <ten characters>` and one `data:`
line with a JSON object of `BENCH_PAYLOAD_BYTES` bytes that begins with the time `t` and a running
number `i`.
"""
