"""A pickle that runs code when it is opened."""

import os
from pathlib import Path


class Bomb:
    """Makes the folder `sign` when it is unpickled."""

    def __init__(self, sign: Path):
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self.sign),)
