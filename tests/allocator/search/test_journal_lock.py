"""The lock on a journal."""

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kvbudget.allocator.search.journal_lock import JournalLock, drop_broken_line

HOLD = """
import sys, time
from kvbudget.allocator.search.journal_lock import JournalLock
lock = JournalLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_does_not_keep_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock, got = JournalLock(str(path)), threading.Event()
    waiter = threading.Thread(target=lambda: lock.acquire() and got.set())
    waiter.start()
    assert not got.wait(0.2)
    holder.send_signal(signal.SIGKILL)
    assert got.wait(20)
    waiter.join()
    lock.release()
    holder.wait()
    holder.stdout.close()


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    inside, most = [], []

    def work() -> None:
        lock = JournalLock(str(path))
        for _ in range(10):
            lock.acquire()
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()
            lock.release()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(most) == 40
    assert max(most) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\nhalf", b"one\n"),
        (b"half", b""),
        (b"\n" + b"x" * 10000, b"\n"),
    ],
)
def test_what_follows_the_last_line_end_is_cut_off(before: bytes, after: bytes) -> None:
    file = io.BytesIO(before)
    drop_broken_line(file)
    assert file.getvalue() == after


def test_taking_the_journal_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"one\nhalf")
    lock = JournalLock(str(path))
    assert lock.acquire()
    lock.release()
    assert path.read_bytes() == b"one\n"
