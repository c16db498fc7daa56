"""`python -m bpilib.report [outputs]`: a report of a folder of executed notebooks; `... NOTEBOOK PAGE`: one page."""

import argparse

from bpilib.errors import MissingInputError
from bpilib.report import write_page, write_report
from bpilib.system.files import in_project

if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bpilib.report", description="Executed notebooks as HTML pages.")
    parser.add_argument("place", nargs="?", default="outputs", help="a folder (outputs), or a notebook for one page")
    parser.add_argument("page", nargs="?", help="where the page of one notebook goes")
    given = parser.parse_args()
    try:
        if given.page:
            print(write_page(in_project(given.place), in_project(given.page)))
        else:
            print(write_report(in_project(given.place)))
    except (MissingInputError, FileExistsError) as error:
        raise SystemExit(str(error)) from None
