"""The built-in synthetic data set: people who act, and the raw files that they are written to."""

from bpilib.data.synthetic.dataset import observe, perform, write_raw
from bpilib.data.synthetic.people import CLASSES

__all__ = ["CLASSES", "observe", "perform", "write_raw"]
