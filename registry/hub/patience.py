"""The one place through which the Hub is asked: it waits as long as the Hub says, and asks again what may be answered later.

1. Nobody of this process asks a hub before the moment that it named last: it counts what an address or a token asks, not a thread.
2. After a 429 or 503 that names a time, all wait that long. Longer than the Hub's own window is not waited but said.
3. After another answer that passes, this question waits a second, and twice as long each further time; everywhere a little more
   by chance, so that those who waited together do not ask together.

huggingface_hub has the same rules in its ``http_backoff``, which its functions that read and create do not go through.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Container
from functools import cache
from threading import Lock
from typing import TypeVar

from registry.hub.trouble import answer_behind, asking, busy, in_words, seconds_to_wait

T = TypeVar("T")

#: Answers to what was not done, and with those of a gateway, behind which it may have been.
REFUSED = frozenset({429, 503})
PASSING = REFUSED | {502, 504}
#: After a commit nothing is asked again here: whether it arrived is looked up first.
NEVER: frozenset[int] = frozenset()
#: Seconds: the window in which the Hub counts, https://huggingface.co/docs/hub/rate-limits
LONGEST = 300.0
#: Seconds before a question is asked again, as often as there are of them.
_PAUSES = (1.0, 2.0, 4.0, 8.0)
#: Seconds that are waited more, by chance.
_SPREAD = 1.0

_log = logging.getLogger("adapters.hub")


def ask(
    where: str,
    question: Callable[[], T],
    *,
    endpoint: str | None = None,
    instead: str | None = None,
    again: Container[int] = PASSING,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """``again`` are the answers after which the question may be put once more. ``pause`` takes seconds; what it raises goes
    through. ``endpoint`` None is the library's own. Raises what :func:`~registry.hub.trouble.asking` does."""
    turn = _turn(endpoint)
    with asking(where, instead=instead):
        for before_next in (*_PAUSES, None):
            turn.wait(where, pause)
            try:
                return question()
            except (OSError, RuntimeError) as error:  # all that the library makes of an answer are
                answer = answer_behind(error)
                told = seconds_to_wait(answer)
                turn.put_off(told)
                if before_next is None or getattr(answer, "status_code", 0) not in again:
                    raise
            if not told:
                pause(before_next * random.uniform(1, 2))  # noqa: S311 - no secret
    raise AssertionError  # the last attempt returns or raises


class _Turn:
    """When a hub may be asked next."""

    def __init__(self) -> None:
        self._moment = 0.0
        self._lock = Lock()

    def put_off(self, seconds: float | None) -> None:
        if not seconds:
            return
        moment = time.monotonic() + seconds
        with self._lock:
            is_news = moment > self._moment + _SPREAD
            self._moment = max(self._moment, moment)
        if is_news and seconds <= LONGEST:
            _log.warning("the Hub asks to wait %s; going on then", in_words(seconds))

    def wait(self, where: str, pause: Callable[[float], None]) -> None:
        """Raises UnavailableError for what is too long."""
        while (left := self._moment - time.monotonic()) > 0:
            if left > LONGEST:
                raise busy(where, left)
            pause(left + random.uniform(0, _SPREAD))  # noqa: S311 - no secret


@cache
def _turn(_endpoint: str | None) -> _Turn:
    return _Turn()
