"""One run suffers everything that runs suffer, and ends as if nothing had happened."""

import signal
import socket
import time

import pytest

from tests.faults import kills
from tests.faults.processes import (
    Fresh,
    checkpoints,
    killed_after,
    leftovers,
    trained,
    words,
)
from tests.launch.commands import everything_under


class Story:
    """The attempts at one run, each of them broken or not."""

    def __init__(self, folder, nursery, cache):
        self.workdir, self.nursery, self.cache = folder / "run", nursery, cache
        self.output = folder / "output"

    def start(self, point=None, n=0):
        return self.nursery.start(words(self.workdir, point, n), self.output)

    def fresh(self, point=None, n=0):
        output = self.output.with_name("fresh")
        return Fresh(self.cache, words(self.workdir, point, n), output)

    def suffers(self, point, n, code):
        """Lets an attempt break, and end as it should; gives the lines that name its end."""
        ended = self.start(point, n).wait()
        assert ended.code == code, (point, ended)
        assert not ended.lines("Traceback", "damaged"), ended.text
        return ended.text.splitlines()

    def killed(self, point, n):
        assert self.suffers(point, n, -signal.SIGKILL)

    def killed_at_random(self, seconds):
        process = self.start()
        ended = killed_after(process, lambda: "\nstep " in process.said(), seconds)
        assert ended.code == -signal.SIGKILL, ended

    def ends_as(self, uninterrupted, process):
        ended = process.wait()
        assert ended.code == 0 and not ended.lines("Traceback", "damaged"), ended
        assert kills.differences(trained(self.workdir), uninterrupted) == []
        assert leftovers(self.workdir) == []


@pytest.fixture
def story(tmp_path, nursery, cache):
    return Story(tmp_path, nursery, cache)


def room_again(folder):
    """Undoes what made a folder read-only, or its disk full."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    (folder.parent / "filler").unlink(missing_ok=True)


def check_storage_error(lines, workdir):
    """One line says it; what is whole stays, nothing half is left."""
    (error,) = (line for line in lines if line.startswith("error: "))
    assert "cannot" in error and str(workdir) in error, error
    assert lines[-1] == error and error.count(". ") == 0, lines
    assert checkpoints(workdir), lines


def test_a_run_suffers_everything(story, uninterrupted):
    story.killed("after_save", 2)
    assert checkpoints(story.workdir) == [3, 4]
    story.killed_at_random(0.1)
    story.killed("torn_flush", 2)
    lines = story.suffers("terminate", 10, 42)
    assert "stopped by SIGTERM at step 11, saved in" in lines[-1], lines
    lines = story.suffers("interrupt_twice", 13, 130)
    assert lines[-1] == "stopped by Ctrl-C", lines

    check_storage_error(story.suffers("read_only", 14, 4), story.workdir)
    room_again(story.workdir)

    # Two at once, of which the first is then killed.
    first = story.start("stall", 16)
    stalled = story.workdir.parent / "stalled"
    while not stalled.exists():
        assert first.alive, first.wait()
        time.sleep(0.01)
    while checkpoints(story.workdir) != [15, 16] or leftovers(story.workdir):
        time.sleep(0.01)  # its last save is still under way
    before = everything_under(story.workdir)
    second = story.fresh().wait()
    owner = f"is in use by process {first.pid} on {socket.gethostname()}, since "
    assert second.code == 2 and owner in second.text, second
    assert second.text.count("\n") == 2, second  # the summary of the data, and the error
    assert everything_under(story.workdir) == before
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    stalled.unlink()

    story.ends_as(uninterrupted, story.fresh("clock"))


def test_a_disk_that_is_full_and_has_room_again(disk, tmp_path, nursery, cache, uninterrupted):
    if disk is None:
        pytest.skip("a small disk can be mounted by root only")
    story = Story(disk, nursery, cache)
    story.output = tmp_path / "output"
    lines = story.suffers("full", 10, 4)
    check_storage_error(lines, story.workdir)
    assert "No space left on device" in lines[-1] and leftovers(story.workdir) == []
    room_again(story.workdir)
    story.ends_as(uninterrupted, story.start())


@pytest.mark.slow
def test_files_that_cannot_grow(story, uninterrupted):
    """As on a full disk, without a disk."""
    lines = story.suffers("no_growth", 10, 4)
    check_storage_error(lines, story.workdir)
    assert "File too large" in lines[-1] and leftovers(story.workdir) == []
    assert sum("no more TensorBoard events" in line for line in lines) <= 1
    story.ends_as(uninterrupted, story.start())


@pytest.mark.slow
@pytest.mark.parametrize("point", kills.POINTS)
def test_a_kill_at_every_point(story, uninterrupted, point):
    story.killed(point, 4)
    story.killed(point, 1)
    story.ends_as(uninterrupted, story.start())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
def test_twenty_kills(tmp_path, nursery, cache, uninterrupted, number):
    planned = kills.kills(1, number, 4)
    assert kills.story(tmp_path / "story", planned, nursery, cache, uninterrupted)["wrong"] == []


@pytest.mark.slow
def test_an_interrupt_a_bad_batch_and_a_source_that_fails(story, uninterrupted):
    lines = story.suffers("interrupt", 5, 42)
    assert "stopped by SIGINT at step 6, saved in" in lines[-1], lines
    lines = story.suffers("poison", 10, 3)
    assert lines[-1].startswith("error: loss is nan and grad norm is nan at step 11, batch 10"), (
        lines
    )
    lines = story.suffers("fails", 15, 1)
    assert "batch 15 of the training pipeline cannot be read" in lines[-1], lines
    assert "step 15 is saved" in lines[-1], lines
    story.ends_as(uninterrupted, story.start())


@pytest.mark.slow
def test_a_worker_of_an_input_pipeline_that_dies(story, uninterrupted):
    """Grain hears of it, and the run ends; the batches do not depend on who makes them."""
    arguments = [*words(story.workdir, "kill_worker", 4), "--config.workers=True"]
    ended = Fresh(story.cache, arguments, story.output).wait()
    (error,) = ended.lines("error: batch ")
    assert ended.code == 1 and "Worker process was terminated" in error, ended
    arguments = [*words(story.workdir), "--config.workers=True"]
    story.ends_as(uninterrupted, Fresh(story.cache, arguments, story.output))
