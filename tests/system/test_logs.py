"""What is reported is shown once, as plain lines on the stdout of the moment."""

import logging

import pytest

from bpilib.system.logs import PACKAGE, show_log


@pytest.fixture(autouse=True)
def as_before():
    logger = logging.getLogger(PACKAGE)
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_lines_are_plain_and_come_once_however_often_it_is_called(capsys):
    show_log()
    show_log()
    log = logging.getLogger(f"{PACKAGE}.somewhere")
    log.info("saved %d files", 3)
    log.debug("of no interest")
    assert capsys.readouterr().out == "saved 3 files\n"
    show_log(logging.WARNING)
    log.info("too much")
    log.warning("careful")
    assert capsys.readouterr().out == "careful\n"
