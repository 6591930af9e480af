"""Work on several items at a time, its results in order."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from queue import Empty, Queue

STOP_SECONDS = 1.0  # that a reader gets to stop in


def map_ahead(function: Callable, items: Iterator, workers: int) -> Iterator[tuple]:
    """(item, function(item)) in order, each as soon as it is ready, computed a few items ahead of the caller.

    A thread of its own takes the items, so that results need not wait for a silent pipe. It is a daemon, or
    such a pipe would keep the program from ending.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: Queue = Queue(4 * workers)
    stopped = threading.Event()

    def submit() -> None:
        with closing(items):
            try:
                for number, item in enumerate(items):
                    future = pool.submit(function, item)
                    waiting.put((item, future.result))
                    if number == 0:
                        wait([future])  # without competitors, or the first result would come late
                    if stopped.is_set():
                        return
                waiting.put(None)
            except BaseException as error:
                failed: Future = Future()
                failed.set_exception(error)
                waiting.put((None, failed.result))

    reader = threading.Thread(target=submit, daemon=True)
    reader.start()
    try:
        while (pair := waiting.get()) is not None:
            item, result = pair
            yield item, result()
    finally:
        stopped.set()
        with suppress(Empty):  # room for what the reader wants to put
            while True:
                waiting.get_nowait()
        reader.join(STOP_SECONDS)
        pool.shutdown(cancel_futures=True)
