"""Parameters: all there are, what each may be, and `resolve`, which makes a run's configuration of any of them."""

from bpilib.config.notebook import from_notebook
from bpilib.config.parameters import NOTEBOOK, RESULT, parameter_table
from bpilib.config.resolution import PROCESSES, Config, resolve, same_setting, unknown_settings
from bpilib.run_keys import RUN_KEYS

__all__ = [
    "NOTEBOOK", "PROCESSES", "RESULT", "RUN_KEYS", "Config", "from_notebook", "parameter_table", "resolve",
    "same_setting", "unknown_settings",
]  # fmt: skip
