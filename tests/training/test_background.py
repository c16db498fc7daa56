"""Files that are written while others work: in order, whole, and no error is lost."""

import logging
import threading

import pytest

from bpilib.training.background import Writer


def test_what_is_asked_for_is_done_in_order_while_the_caller_goes_on():
    writer, done, go = Writer(behind=True), [], threading.Event()
    writer.do(go.wait)
    for i in range(3):
        writer.do(lambda i=i: done.append(i))
    assert not done  # nobody waited
    go.set()
    writer.wait()
    assert done == [0, 1, 2]
    writer.close()


def test_without_a_thread_it_is_done_at_once():
    writer, done = Writer(behind=False), []
    writer.do(lambda: done.append(threading.current_thread()))
    assert done == [threading.main_thread()]
    writer.wait()
    writer.close()


def test_an_error_is_raised_once_where_it_is_waited_for_and_logged_where_it_is_not(caplog):
    def full():
        raise OSError("the disk is full")

    writer, done = Writer(behind=True), []
    writer.do(full)
    writer.do(lambda: done.append(1))
    with pytest.raises(OSError, match="disk is full"):
        writer.wait()
    assert done == [1]
    writer.wait()
    writer.do(full)
    with caplog.at_level(logging.ERROR):
        writer.close()
    assert "could not be written" in caplog.text and "disk is full" in caplog.text
