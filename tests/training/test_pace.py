"""Drawing takes a twentieth of a training at most, and what is cheap is drawn each time."""

import pytest

from bpilib.training import pace
from bpilib.training.pace import SHARE, Pace


class Clock:
    """Two clocks that move when they are told to."""

    def __init__(self):
        self.now = self.worked = 100.0

    def monotonic(self):
        return self.now

    def thread_time(self):
        return self.worked

    def work(self, seconds, waiting=0.0):
        self.worked += seconds
        self.now += seconds + waiting


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


@pytest.mark.parametrize(("drawing", "epoch"), [(0.5, 2.0), (0.5, 30.0), (40.0, 2.0), (0.2, 1.0)])
def test_drawing_takes_its_share_and_no_more(clock, drawing, epoch):
    made, drawn = Pace(), 0
    for _ in range(2000):
        clock.work(epoch)
        if made.is_due():
            drawn += 1
            with made.measured():
                clock.work(drawing)
    whole = clock.now - 100
    assert (drawn - 1) * drawing <= SHARE * whole
    as_often_as_affordable = whole / (drawing / SHARE + epoch + drawing) - 1
    assert drawn >= min(2000, as_often_as_affordable)


def test_what_is_cheap_is_drawn_each_time_however_long_it_waits_for_a_core(clock):
    made = Pace()
    for _ in range(5):
        assert made.is_due()
        with made.measured():
            clock.work(0.05, waiting=10.0)


def test_what_fails_is_counted_too(clock):
    made = Pace()
    with pytest.raises(OSError), made.measured():
        clock.work(5.0)
        raise OSError
    assert not made.is_due()
    clock.work(5.0 / SHARE)
    assert made.is_due()
