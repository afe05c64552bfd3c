"""Tasks that wait for one another, on this machine's cores or on a Dask cluster."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from fidlib.runs import machine

Backend = Literal["loky", "dask"]

LIVES = 3
"""A pool that lost a process is begun anew so often."""


@dataclass(frozen=True)
class Task:
    """Something to be called in some process, once what it waits for is done."""

    key: str
    """Unique in a run."""
    title: str
    """Its name for people, such as a lineage."""
    call: Callable[[], Any]
    """Finds finished work in the store, so that it can be called again."""
    after: tuple[str, ...] = ()
    """Keys of the tasks that it waits for."""


Finished = Callable[[Task, Any], None]
"""Told of each task with its result, or the exception that it raised."""


def run(
    tasks: Sequence[Task],
    finished: Finished,
    *,
    jobs: int | None = None,
    backend: Backend = "loky",
    scheduler: str = "",
) -> None:
    """Call all tasks, each as soon as it may.

    What waits for a task that failed is not called, and ends with the same exception.

    Args:
        tasks: In the order in which they start, where several may.
        finished: Called in this process, as each ends.
        jobs: Tasks at a time, each with its share of the processor's threads. None: one
            a core, for much of a training of a small network is not shared among
            threads; one where there is a GPU. One alone runs in this process.
        backend: `loky` on this machine, `dask` on a cluster with a shared file system.
        scheduler: Address of the Dask scheduler, such as tcp://host:8786.

    Raises:
        ValueError: If the backend lacks its scheduler, or an option is not the
            backend's.
    """
    check(jobs, backend, scheduler)
    if jobs is None:
        cores = 1 if machine.device().type == "cuda" else os.cpu_count() or 1
        jobs = max(1, min(cores, len(tasks)))
    left = {task.key: task for task in tasks}
    failed: dict[str, Exception] = {}

    def note(task: Task, result: Any) -> None:
        del left[task.key]
        if isinstance(result, Exception):
            failed[task.key] = result
        finished(task, result)

    if backend == "loky" and jobs == 1:
        while left:
            task = next(t for t in left.values() if not left.keys() & {*t.after})
            note(task, _lost(task, failed) or _called(task))
        return
    for life in range(LIVES):
        with _executor(backend, scheduler, jobs) as executor:
            try:
                _run(executor, left, failed, note)
            except BrokenExecutor as error:  # a process was killed
                if life + 1 == LIVES:
                    raise RuntimeError(
                        f"a process of the pool was ended {LIVES} times: run fewer "
                        "jobs at a time, if memory was short; what is finished is kept."
                    ) from error
        if not left:
            return


def check(jobs: int | None, backend: Backend, scheduler: str) -> None:
    """Raise ValueError if the options of `run` are none, or do not go together."""
    if backend not in get_args(Backend) or not isinstance(scheduler, str):
        raise ValueError(
            f"backend is {backend!r}, scheduler {scheduler!r}; use one of "
            f"{', '.join(get_args(Backend))}, and of dask an address, such as "
            "tcp://host:8786."
        )
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool)):
        raise ValueError(f"jobs is {jobs!r}; expected a whole number, such as 2.")
    if scheduler and backend != "dask":
        raise ValueError(f"scheduler {scheduler} is for backend dask, not {backend}.")
    if jobs is not None and backend == "dask":
        raise ValueError(
            f"jobs is {jobs}, but a Dask cluster runs as much at once as it has "
            "workers: leave jobs out."
        )
    if backend == "dask" and not scheduler:
        raise ValueError("backend dask needs --scheduler, such as tcp://host:8786.")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; run at least one at a time.")


def _run(
    executor: Executor,
    left: dict[str, Task],
    failed: dict[str, Exception],
    note: Callable[[Task, Any], None],
) -> None:
    going: dict[Future, Task] = {}
    while left:
        started = {task.key for task in going.values()}
        for task in list(left.values()):
            if lost := _lost(task, failed):
                note(task, lost)
            elif task.key not in started and not left.keys() & {*task.after}:
                going[executor.submit(task.call)] = task
        if not going:
            continue
        done, _ = wait(going, return_when=FIRST_COMPLETED)
        for future in done:
            task, error = going.pop(future), future.exception()
            if isinstance(error, BrokenExecutor):
                raise error
            note(task, future.result() if error is None else error)


def _called(task: Task) -> Any:
    try:
        return task.call()
    except Exception as error:
        return error


def _lost(task: Task, failed: dict[str, Exception]) -> Exception | None:
    """Why a task cannot be called, if what it waits for failed."""
    causes = [failed[key] for key in task.after if key in failed]
    return causes[0] if causes else None


@contextlib.contextmanager
def _executor(backend: Backend, scheduler: str, jobs: int) -> Iterator[Executor]:
    if backend == "dask":
        try:
            from distributed import Client
        except ImportError as error:
            raise ValueError(
                "backend dask needs the extra cluster: pip install 'fidlib[cluster]'."
            ) from error
        with Client(scheduler) as client:
            workers = cast(dict[str, int], client.nthreads())
            if (threads := max(workers.values(), default=1)) > 1:
                raise ValueError(
                    f"a Dask worker runs {threads} tasks at once in one process, where "
                    "they mix up their folders: start workers with --nthreads 1."
                )
            # The same call may be asked for again after a failure: never an old answer.
            yield client.get_executor(pure=False)
        return
    from joblib.externals import loky

    # Two processes with all threads each are far slower than one after the other.
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = dict.fromkeys(names, threads)
    # No time-out: a worker that waits while another trains for hours is wanted still.
    executor = loky.ProcessPoolExecutor(max_workers=jobs, env=env, timeout=None)
    try:
        yield executor
    except BaseException:
        executor.shutdown(kill_workers=True)
        raise
    executor.shutdown()
