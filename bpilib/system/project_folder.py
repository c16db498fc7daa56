"""`bpilib notebooks FOLDER`: a project folder for a package that is installed without a checkout."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bpilib.system.files import NOTEBOOKS, PARAMS, write_atomically

ENDINGS = {".ipynb", ".png", ".yaml", ".txt", ".npz"}  # of what is copied; not what running left there


def copy_notebooks(folder: str | Path, overwrite: bool = False) -> list[str]:
    """Copy the notebooks and params that come with the package to a folder's notebooks/ and params/.

    Data and outputs of notebooks that run in there go to its data/ and outputs/; its params are the ones that count.

    Args:
        folder: made where missing.
        overwrite: replace files that are there and differ, too.

    Returns:
        What was done, a line each: how much was copied, and which files were replaced.

    Raises:
        ValueError: files that are there and differ, each named, and nothing is copied; `folder` is a file.
        OSError: the folder can't be written.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder, which may be new")
    files = {
        folder / name / path.relative_to(source): path.read_bytes()
        for name, source in (("notebooks", NOTEBOOKS), ("params", PARAMS))
        for path in sorted(source.rglob("*"))
        if path.suffix in ENDINGS and not any(part.startswith(".") for part in path.relative_to(source).parts)
    }
    there = {path for path in files if path.exists()}
    changed = sorted(path for path in there if not path.is_file() or path.read_bytes() != files[path])
    if changed and not overwrite:
        listed = "\n  ".join(str(path) for path in changed[:20])
        more = f"\n  ... and {len(changed) - 20} more" if len(changed) > 20 else ""
        raise ValueError(
            f"nothing copied, since {len(changed)} files are there with other content:\n  {listed}{more}\n"
            "name an empty folder, or add --overwrite to replace them"
        )
    for path in files:
        if path not in there or path in changed:
            write_atomically(path, files[path])
    new = len(files) - len(there)
    done = [f"{folder}: {new} files copied, {len(there) - len(changed)} were there already"]
    return done + [f"replaced {path}" for path in changed]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `bpilib`; errors are one line and exit status 1."""
    parser = argparse.ArgumentParser("bpilib", description="Skeleton-text action recognition in Jupyter notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    copy = commands.add_parser("notebooks", help="copy the notebooks and parameter files to a folder of yours")
    copy.add_argument("folder", help="of the project; data/ and outputs/ will lie there, too")
    copy.add_argument("--overwrite", action="store_true", help="replace files that are there and differ")
    given = parser.parse_args(arguments)
    try:
        print(*copy_notebooks(given.folder, given.overwrite), sep="\n")
    except (OSError, ValueError) as error:
        raise SystemExit(f"bpilib: {error}") from None
    print(f"next: cd {given.folder} && papermill notebooks/01_prepare_data.ipynb out.ipynb, or jupyter lab")
