"""A stopwatch divides all of its time among parts, of which always one runs."""

import pytest
from stopped_clock import StoppedClock

from hkrun.stopwatch import Stopwatch


@pytest.fixture
def clock():
    return StoppedClock()


def test_every_second_belongs_to_one_part(clock):
    watch = Stopwatch("a", clock=clock)
    clock.advance(1)
    watch.enter("b")
    clock.advance(2)
    watch.enter("a")
    clock.advance(4)
    assert watch.read() == {"a": 5.0, "b": 2.0}
    clock.advance(8)
    assert watch.read() == {"a": 13.0, "b": 2.0}
    assert watch.elapsed_s == 15.0


def test_what_happens_within_a_part_is_not_counted_twice(clock):
    watch = Stopwatch("outer", clock=clock)
    with watch.within("middle"):
        clock.advance(1)
        with watch.within("inner"):
            clock.advance(2)
        clock.advance(4)
    clock.advance(8)
    assert watch.read() == {"outer": 8.0, "middle": 5.0, "inner": 2.0}


def test_a_part_that_raises_ends_with_its_block(clock):
    watch = Stopwatch("outer", clock=clock)

    def fail():
        clock.advance(1)
        raise ValueError

    with pytest.raises(ValueError), watch.within("inner"):  # noqa: PT011
        fail()
    clock.advance(2)
    assert watch.read() == {"outer": 2.0, "inner": 1.0}


def test_what_was_read_stays_as_it_was(clock):
    watch = Stopwatch("a", clock=clock)
    before = watch.read()
    clock.advance(1)
    watch.read()
    assert before == {"a": 0.0}
