"""Signals: at once, or at the next pause; a process that does not outlive its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlframe.runs.signals import RunInterrupted, Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_own_status(number, status):
    with Signals(), pytest.raises(SystemExit) as stopped:
        signal.raise_signal(number)
    assert (type(stopped.value), stopped.value.code) == (RunInterrupted, status)


def test_while_training_goes_on_the_first_is_noted_and_the_second_stops():
    with Signals() as signals:
        with signals.waiting():
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
            with pytest.raises(RunInterrupted) as stopped:
                signal.raise_signal(signal.SIGINT)
        assert stopped.value.code == 130
        with pytest.raises(RunInterrupted):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Signals():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_takes_none():
    entered = []

    def enter() -> None:
        with Signals() as signals:
            entered.append(signals.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own")
def test_a_process_of_a_killed_run_does_not_stay():
    child = "import time, dlframe.runs.signals as s; s.exit_with_parent(); print('ready', flush=True); time.sleep(60)"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        (pid,) = (int(line) for line in lines if line != "ready")
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():  # a zombie has none
        assert time.monotonic() < deadline
        time.sleep(0.01)
