"""`python -m bpilib.config` prints the parameter table of docs/parameters.md."""

from bpilib.config import parameter_table

if __name__ == "__main__":
    print(parameter_table(), end="")
