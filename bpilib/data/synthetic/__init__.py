"""The built-in synthetic data set: procedural people who act, and their raw files."""

from bpilib.data.synthetic.dataset import observe, perform, write_raw
from bpilib.data.synthetic.people import CLASSES

__all__ = ["CLASSES", "observe", "perform", "write_raw"]
