"""Signals are heard at once in a thread; the work ends where it may; who sent them is obeyed in the end."""

import signal
import threading

import pytest

from bpilib.system.signals import ENDING, Interruption, listening


@pytest.fixture
def received():
    """Numbers of the signals that came to the handlers from before."""
    numbers = []
    before = {number: signal.signal(number, lambda number, _: numbers.append(number)) for number in ENDING}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_thread_hears_while_the_main_thread_runs_no_python_code(received):
    heard, looked, told = [], threading.Event(), threading.Event()

    def hear(number):
        heard.append((number, threading.current_thread() is threading.main_thread()))
        told.set()

    with listening(hear, looked.set, every=0.01):
        assert looked.wait(60)
        signal.raise_signal(signal.SIGTERM)
        assert told.wait(60)
    assert heard == [(signal.SIGTERM, False)] and signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", ENDING)
def test_work_is_saved_and_ended_at_once_where_it_is_not_deferred(received, number):
    saved = []
    with pytest.raises(KeyboardInterrupt, match="run the same again"), Interruption() as interruption:
        interruption.save = lambda: saved.append(threading.current_thread().name)
        signal.raise_signal(number)
        raise AssertionError("it goes on")
    assert saved == ["signals"] and interruption.is_set()
    assert received == ([] if number == signal.SIGINT else [number])


def test_deferred_work_is_not_cut_in_two(received):
    done = []
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)  # which changes nothing more
            interruption.wait_until_saved()
            done.append(interruption.is_set())
        raise AssertionError("it goes on")
    assert done == [True] and received == [signal.SIGTERM]


def test_the_second_ctrl_c_goes_to_the_handler_from_before(received):
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption, interruption.deferred():
        signal.raise_signal(signal.SIGINT)
        assert not received
        signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGINT]


def test_a_save_that_fails_is_reported_and_the_work_still_ends(received, caplog):
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        interruption.save = lambda: 1 / 0
        signal.raise_signal(signal.SIGINT)
    assert "could not be saved at once" in caplog.text and "ZeroDivisionError" in caplog.text


def test_what_is_ignored_stays_ignored(received):
    """As nohup has it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert not interruption.is_set()


def test_without_a_signal_all_is_as_before(received):
    before = [signal.getsignal(number) for number in ENDING]
    with Interruption() as interruption, interruption.deferred():
        pass
    interruption.wait_until_saved()
    assert [signal.getsignal(number) for number in ENDING] == before and not received
