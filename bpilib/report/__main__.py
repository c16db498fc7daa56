"""`python -m bpilib.report [outputs]`: write the report of a folder of executed notebooks."""

import sys

from bpilib.errors import MissingInputError
from bpilib.report import write_report
from bpilib.system.files import in_project

if __name__ == "__main__":
    try:
        print(write_report(in_project(sys.argv[1] if len(sys.argv) > 1 else "outputs")))
    except (MissingInputError, FileExistsError) as error:
        raise SystemExit(str(error)) from None
