"""Where Dask works: threads of this process, worker processes of a command, or a cluster."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

__all__ = ["dask_workers", "describe"]

_PATIENCE = 10.0  # seconds


@contextmanager
def dask_workers(*, scheduler: str | None = None, workers: int = 0) -> Iterator[Any]:
    """Let Dask compute on a cluster inside a ``with`` block; by default, on threads as before.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, such as ``tcp://10.0.0.1:8786``. Its workers need sciwm and
        the same file system.
    workers : int
        Or so many worker processes on this machine, ended with the block.

    Yields
    ------
    distributed.Client or None
        None without a cluster.

    Raises
    ------
    ImportError
        If ``distributed`` is not installed.
    ConnectionError
        If no scheduler, or none with a worker, answers within 10 seconds.
    ValueError
        If both are given.
    """
    if scheduler is None and not workers:
        yield None
        return
    if scheduler is not None and workers:
        raise ValueError(
            f"got scheduler {scheduler!r} and {workers} workers, expected one of them: a cluster"
            " has workers of its own"
        )
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise ImportError(
            "got no package 'distributed', which Dask needs for a cluster: pip install"
            " 'sciwm[cloud]'"
        ) from None
    with ExitStack() as stack:
        if scheduler is not None:
            client = stack.enter_context(_connect(distributed, scheduler))
        else:
            local = distributed.LocalCluster(n_workers=workers, dashboard_address="127.0.0.1:0")
            cluster = stack.enter_context(local)
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        try:
            with client.as_current():
                yield client
        except KeyboardInterrupt:
            # Every task that was waited for would complain.
            stack.enter_context(_silence("asyncio", "distributed"))
            client.close()
            raise


def describe(client: Any) -> str:
    """One line on a cluster, for people."""
    return f"workers: {len(client.nthreads())}, dashboard: {client.dashboard_link}"


@contextmanager
def _silence(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def _connect(distributed: Any, scheduler: str) -> Any:
    try:
        # Not the default: one that fails would stay it.
        client = distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except Exception as error:  # whatever answers there, if anything does
        raise ConnectionError(
            f"got scheduler {scheduler!r}, which does not answer ({error or type(error).__name__}),"
            " expected the address of a running Dask scheduler, such as tcp://10.0.0.1:8786; start"
            " one with `dask scheduler`"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        client.close()
        raise ConnectionError(
            f"got scheduler {scheduler!r} without workers after {_PATIENCE:g} s, expected one at"
            f" least; start some with `dask worker {scheduler}`"
        ) from error
    return client
