"""A function of one item, of many: in this process or in workers that end with it."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from math import ceil
from multiprocessing import get_context, parent_process
from typing import Generic, TypeVar

from mols.common.terminal import ExperimentError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerMap(Generic[Item, Result]):
    """``function`` of many items; worker processes change how long it takes, never what comes out.

    Args:
        function: of a module, so that it can be named to another process; items and results are pickled.
        workers: processes, started when first needed; 0: this one.
    """

    def __init__(self, function: Callable[[Item], Result], workers: int = 0) -> None:
        self.function, self.workers = function, workers
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """The results, in the order of their items.

        Raises:
            ExperimentError: as ``function``; or a worker died.
        """
        if self.workers == 0:
            return [self.function(item) for item in items]
        if self._pool is None:
            # spawn: a fork would copy the locks of torch's threads in whatever state they are.
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _start_worker)
        try:
            return list(self._pool.map(self.function, items, chunksize=ceil(len(items) / self.workers) or 1))
        except BrokenProcessPool as error:
            raise ExperimentError("a worker process died, perhaps for lack of memory: use fewer --workers") from error

    def close(self) -> None:
        """End the workers; the next call would start others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)
