"""Parameters: all there are, what each may be, and `resolve`, which makes a run's configuration of any of them."""

from bpilib.config.notebook import from_notebook
from bpilib.config.parameters import NOTEBOOK, RESULT, parameter_table
from bpilib.config.resolution import Config, resolve, same_setting
from bpilib.run_keys import RUN_KEYS

__all__ = [
    "NOTEBOOK", "RESULT", "RUN_KEYS", "Config", "from_notebook", "parameter_table", "resolve", "same_setting",
]  # fmt: skip
