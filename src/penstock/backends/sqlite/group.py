"""What the operations of one group share: the time, the store, and the news that come of them."""

from __future__ import annotations

from collections.abc import Callable, Container, MutableMapping

from penstock.backends.sqlite.operations import News
from penstock.backends.sqlite.state import StreamState, milliseconds
from penstock.backends.sqlite.store import Store


class Group:
    """One at a time; `begin` makes it the next. `touched` tells when streams were last read, in
    seconds since 1970; `watched` which of them somebody hears."""

    def __init__(
        self,
        store: Store,
        wall_clock: Callable[[], float],
        touched: MutableMapping[str, float],
        watched: Container[str],
    ) -> None:
        self.store = store
        self.touched = touched
        self.now = 0.0
        self.now_ms = 0
        self.news: list[News] = []
        self._wall_clock = wall_clock
        self._watched = watched

    def begin(self) -> None:
        """Tell the time."""
        self.now = self._wall_clock()
        self.now_ms = milliseconds(self.now)
        self.news = []

    def is_watched(self, name: str) -> bool:
        """Whether news of a stream are wanted. Who begins to watch later asks for its head, which
        tells of everything that was judged before."""
        return name in self._watched

    def is_over(self, state: StreamState) -> bool:
        """Whether a stream's time is over, as who reads it counts it."""
        if not state.is_over(self.now_ms):
            return False
        when = self.touched.get(state.name)
        if when is not None:
            state.use(milliseconds(when))
        return state.is_over(self.now_ms)
