"""`python -m bpilib.report [outputs]`: a report of a folder of executed notebooks; `... NOTEBOOK PAGE`: one page."""

import sys

from bpilib.errors import MissingInputError
from bpilib.report import write_page, write_report
from bpilib.system.files import in_project

if __name__ == "__main__":
    places = [in_project(place) for place in sys.argv[1:]] or [in_project("outputs")]
    try:
        print(write_page(*places) if len(places) == 2 else write_report(*places))
    except (MissingInputError, FileExistsError) as error:
        raise SystemExit(str(error)) from None
