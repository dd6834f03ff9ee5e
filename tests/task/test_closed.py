"""Databases, threads, processes and their pools that are over travel as what they are; others don't."""

from __future__ import annotations

import contextlib
import multiprocessing.pool
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from p2p_ipython.task.payload import pack_result, unpack


def sent(value: Any) -> Any:
    packed = pack_result(value)
    return unpack(packed.segments, packed.inline, packed.large)


@pytest.mark.parametrize("kind", [multiprocessing.Pool, multiprocessing.pool.ThreadPool])
def test_a_pool_of_multiprocessing_that_is_over_refuses_tasks_elsewhere_too(kind: Any) -> None:
    with kind(1) as pool:
        with pytest.raises(NotImplementedError):
            pack_result(pool)
        assert pool.map(abs, [-1]) == [1]
    got = sent(pool)
    assert type(got) is type(pool)
    assert repr(got) == repr(pool)
    with pytest.raises(ValueError, match="Pool not running"):
        got.map(abs, [-1])
    got.close()
    got.join()
    got.terminate()


def test_a_thread_that_has_ended_travels_and_one_that_runs_stays() -> None:
    free = threading.Event()
    thread = threading.Thread(target=free.wait, name="reader", daemon=True)
    thread.start()
    with pytest.raises(TypeError):
        pack_result(thread)
    free.set()
    thread.join()
    got = sent([thread])[0]
    got.join()
    assert (got.name, got.daemon, got.is_alive()) == ("reader", True, False)
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        got.start()


def test_a_process_that_has_ended_travels_and_one_that_runs_stays() -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.raises(TypeError):
        pack_result(process)
    process.communicate("read")
    got = sent(process)
    assert repr(got) == repr(process)
    assert (got.args, got.returncode, got.poll(), got.wait(), got.pid) == (["cat"], 0, 0, 0, process.pid)
    assert got.stdout.closed
    got.kill()


def test_a_database_that_was_closed_travels_and_an_open_one_stays() -> None:
    database = sqlite3.connect(":memory:")
    cursor = database.execute("SELECT 1")
    for each in (database, cursor):
        with pytest.raises(TypeError):
            pack_result(each)
    database.close()
    for got in (sent(database), sent(cursor)):
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            got.execute("SELECT 1")


def test_a_database_that_another_thread_has_open_stays() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pack_result, database)
        assert isinstance(asked.exception(), TypeError)
