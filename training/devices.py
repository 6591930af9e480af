"""One run on several devices, of this machine or of several: data parallelism, by Keras on JAX.

Each device computes some rows of every batch, and all apply the same gradient to a copy of the weights. So
batches, losses and weights are those of one device.
"""

import atexit
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras

from training.config import ConfigError
from training.data import Share

HEARTBEAT_SECONDS = 30  # a process that says nothing for so long is lost
LOST = "another process of this run ended or is out of reach: see what it said, start all again with --resume"
# What a broken connection raises; and what JAX logs in C++, with a stack trace, as it ends this process.
LOST_ERROR = "Gloo|NCCL|[Hh]eartbeat|[Cc]oordination"
LOST_LOG = r"[EF]\d{4} .*(coordination_service|distributed service)"
# Copies its input to standard error until LOST is said, or such a log, in place of which it says LOST.
FILTER = """
import re, sys
said, log = sys.argv[1:]
lost = False
for line in sys.stdin:
    if lost:
        continue
    line = said if re.match(log, line) else line.rstrip("\\n")
    print(line, file=sys.stderr, flush=True)
    lost = line == said
"""


class LostProcess(ValueError):
    """One line: that another process is lost, and what to do."""


@contextmanager
def joined(coordinator: str | None, process: int | None, processes: int | None) -> Iterator[None]:
    """Makes this process one of several that run the same command, each with a number of its own.

    To be entered before JAX computes anything. All meet at the address `coordinator`, HOST:PORT of process 0.
    When one of them ends early, the others end, too, at the latest after `HEARTBEAT_SECONDS`.

    Raises ConfigError for numbers that do not fit, and where Keras' backend is not JAX.
    """
    if coordinator is None and process is None and processes is None:
        yield
        return
    if coordinator is None or process is None or processes is None:
        raise ConfigError("--coordinator, --process and --processes go together: give all three")
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator {coordinator}: write HOST:PORT of process 0, e.g. 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise ConfigError(f"--process {process}: of {processes} processes, they are counted from 0")
    require_jax()
    import jax

    # A process of its own, since JAX aborts this one; not in reach of a Ctrl-C, which this one reports.
    command = [sys.executable, "-c", FILTER, f"error: {LOST}", LOST_LOG]
    log = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    os.dup2(log.stdin.fileno(), sys.stderr.fileno())
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        cluster_detection_method="deactivate",  # it would give a process one of several GPUs under Slurm
    )
    try:
        wait_for_all("start")  # connects them, for which JAX waits 30 s, and later for as long as it takes
        yield
    except BaseException as error:
        atexit.register(os._exit, 1)  # at the exit, JAX would wait for the others
        if isinstance(error, Exception) and re.search(LOST_ERROR, str(error)):
            raise LostProcess(LOST) from error
        raise


def require_jax() -> None:
    """Raises ConfigError where Keras' backend is another one."""
    backend = keras.backend.backend()
    if backend != "jax":
        raise ConfigError(
            f"devices=all needs the backend JAX, this is {backend}: pip install jax, then "
            "KERAS_BACKEND=jax hark train ..."
        )


def share_of_batches() -> Share:
    """Which rows of every batch are those of this process."""
    import jax

    return Share(jax.process_index(), jax.process_count(), jax.device_count())


def wait_for_all(what: str) -> None:
    """Returns when every process has come to the same place."""
    from jax.experimental.multihost_utils import sync_global_devices

    sync_global_devices(what)


def distribute(variables: Sequence[keras.Variable]) -> None:
    """Copies variables to all devices; from now on, `fit` divides every batch among them."""
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    for variable in variables:
        # Keras does this as it makes a variable. Not so here: before, process 0 alone fills the caches.
        variable._layout = distribution.get_variable_layout(variable)
        variable.assign(variable.value)
