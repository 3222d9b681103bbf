"""One thread that does what it is asked, in order, and between two acts takes a step while there is work.

Knows neither what a step is nor what is asked of it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger("magister.engine")

_ROUNDS = 256
"""Steps in a row, after which the thread goes through its executor again: that is where an interpreter that is about to
exit stops it, should nobody have closed it.
"""


class Stepper:
    """Every act asked for during a step is done before the next one."""

    def __init__(self, step: Callable[[], bool], fail: Callable[[BaseException], None], name: str) -> None:
        """`step` says whether there is more to do; `fail` is told, on the thread, of every error in steps and acts."""
        self._step = step
        self._fail = fail
        self._acts: deque[Callable[[], object]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._awake = False
        self._closed = False
        self._telling = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def submit(self, act: Callable[[], object]) -> None:
        """Has the thread do something, from any thread. RuntimeError after `close`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._acts.append(act)
            self._wake()

    def ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Has the thread do something and waits for what comes of it."""
        future, answer = _asking(partial(act, *args, **kwargs))
        self.submit(answer)
        return future.result()

    def close(self, last: Callable[[], object]) -> None:
        """Does one last thing after all others, which must leave no work, and ends the thread. Once is enough."""
        future, answer = _asking(last)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._acts.append(answer)
            try:
                self._wake()
                ending = False
            except RuntimeError:
                ending = True
        if ending:
            # No pool takes anything more and its threads have ended, as at the interpreter's end: done in this thread.
            self._run()
        future.result()
        self._executor.shutdown()

    def _wake(self) -> None:
        assert self._lock.locked()
        if not self._awake:
            self._go_on()
            self._awake = True

    def _go_on(self) -> None:
        self._executor.submit(self._run).add_done_callback(self._ended)

    def _run(self) -> bool:
        """Acts and steps; whether there is more to do."""
        acts = self._acts
        for _ in range(_ROUNDS):
            while acts:
                acts.popleft()()
            if not self._step():
                with self._lock:
                    if not acts:
                        self._awake = False
                        return False
        return True

    def _ended(self, future: Future[bool]) -> None:
        try:
            self._follow(future)
        except RuntimeError:
            # The interpreter is ending: what there still is to do is left to `close`.
            with self._lock:
                self._awake = False

    def _follow(self, future: Future[bool]) -> None:
        error = future.exception()
        if error is None:
            if future.result():
                self._go_on()
        elif not self._telling:
            self._acts.appendleft(partial(self._tell, error))
            self._go_on()
        else:
            # To tell of what hindered the telling would fail for ever: it rests until it is asked for something.
            self._telling = False
            _LOG.error("a failure could not be told", exc_info=error)
            with self._lock:
                self._awake = bool(self._acts)
                if self._awake:
                    self._go_on()

    def _tell(self, error: BaseException) -> None:
        self._telling = True
        self._fail(error)
        self._telling = False


def _asking(act: Callable[[], T]) -> tuple[Future[T], Callable[[], None]]:
    """`act` as one that tells a future what came of it."""
    future: Future[T] = Future()

    def answer() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)
            raise

    return future, answer
