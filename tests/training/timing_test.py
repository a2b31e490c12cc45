"""How long a run will take, on a clock that stands still until it is told."""

import pytest

from recattn_jax.training import Cadence, timing


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])

    class Told(timing.Clock):
        def after(self, seconds, targets):
            now[0] += seconds
            self.step(targets)

        def evaluated(self, seconds):
            with self.evaluation():
                now[0] += seconds
                self.restart()

    told = Told(Cadence(100, 10, 30, 100, 1, None, None))
    with told.compiling():
        now[0] += 14.0
    told.restart()
    return told


def test_nothing_is_said_before_it_can_be_known(clock):
    assert clock.expected(0) == "" and clock.news(0, False) == ""
    clock.after(50.0, 512.0)  # the first step warms up
    assert clock.expected(1) == "" and clock.news(1, False) == ""
    assert clock.news(1, True) == "compiled in 14 s"
    assert clock.news(2, True) == ""


def test_what_is_left_is_steps_and_evaluations(clock):
    for seconds in (50.0, 2.0, 4.0):
        clock.after(seconds, 512.0)
    # 97 steps of 3 seconds, and evaluations after steps 30, 60, 90 and 100.
    assert clock.expected(3) == "about 4.8 min and 4 evaluations left"
    assert clock.news(3, False) == (
        "compiled in 14 s; about 4.8 min and 4 evaluations left, at 171 targets/s, 512 a step"
    )
    clock.evaluated(40.0)
    assert clock.expected(30) == "about 6.2 min left"  # one of them at this step
    assert clock.expected(31) == "about 5.5 min left"
    assert clock.expected(100) == "about 40 s left"
    clock.after(3.0, 512.0)  # the evaluation was not in it
    assert clock.expected(31) == "about 5.5 min left"


def test_the_speed_of_a_line_is_that_since_the_last(clock):
    clock.after(2.0, 100.0)
    clock.after(2.0, 300.0)
    assert clock.speed() == 100.0
    clock.after(1.0, 300.0)
    assert clock.speed() == 300.0
    clock.after(1.0, 300.0)
    clock.evaluated(10.0)
    clock.after(1.0, 500.0)
    assert clock.speed() == 500.0
