"""Jobs in processes of their own, whose results are read from run directories."""

from __future__ import annotations

from pathlib import Path

from dlframe.jobs.executors import Inline, Job, Processes


def job(tmp_path: Path, *overrides: str) -> Job:
    options = ("model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path / 'runs, with = and comma'}", *overrides)
    return Job(options, "mlp", "mlp")


def test_a_process_gives_what_this_process_gives(tmp_path, capfd):
    apart, inline = Processes().submit(job(tmp_path)), Inline().submit(job(tmp_path))
    assert apart.failure == inline.failure == ""
    assert apart.result
    assert inline.result
    assert apart.result.metrics == inline.result.metrics
    assert apart.result.declared == inline.result.declared
    assert apart.result.folder != inline.result.folder.resolve()
    assert "mlp on digits" in capfd.readouterr().out, "what a job says is passed on"


def test_a_failure_is_an_outcome(tmp_path, capfd):
    for executor in (Processes(), Inline()):
        outcome = executor.submit(job(tmp_path, "data=image_folder", "data.path=nowhere"))
        assert outcome.result is None
        assert outcome.failure.startswith("data.path: no such folder. Received: nowhere.")
        assert executor.close() == []


def test_a_job_of_several_processes_is_read_from_its_directory(tmp_path):
    outcome = Inline().submit(job(tmp_path, "trainer=ddp"))
    assert outcome.failure == ""
    assert outcome.result
    assert outcome.result.samples == 359
