"""The command for pretrained networks: `python -m bpilib.pretrained list` and `python -m bpilib.pretrained save`."""

import argparse
from pathlib import Path

from bpilib.config import Config, resolve
from bpilib.pretrained.loading import read_config
from bpilib.pretrained.places import CONFIG, list_shipped
from bpilib.pretrained.saving import save_pretrained
from bpilib.runs import read_run_config
from bpilib.system.files import in_project


def _describe(name: str, folder: Path) -> str:
    """Say name, size and figures of a network in one line."""
    config = read_config(folder / CONFIG)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    stated = config["expected"]
    figures = f"top-1 {stated['top1']:.2f} % of {stated['clips']}" if stated else "no figures"
    if "without_copies" in stated:
        rest = stated["without_copies"]
        figures += f", {rest['top1']:.2f} % of the {rest['clips']} that are no copies"
    return f"{name}  {size:.1f} MB  {figures}"


def _find_run(directory: str, data: str | None, device: str | None) -> Config:
    """Find the configuration of a run directory, with the store and texts that are here where its own have moved."""
    config = read_run_config(in_project(directory))
    had = config.data if Path(config.data).is_dir() else None
    here = resolve(dataset=config.dataset, benchmark=config.benchmark, data=data or had, device=device or config.device)
    prompts = config.prompts if Path(config.prompts).is_file() else here.prompts
    return config.changed(data=here.data, prompts=prompts, device=here.device)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m bpilib.pretrained", description="Pretrained networks.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="those that come with the package")
    save = commands.add_parser("save", help="write a trained run's network to a folder, to keep or to share")
    save.add_argument("run", help="run directory, such as outputs/ucla_xview/bpi_joint_seed0")
    save.add_argument("folder", help="where to; absent, empty, or of a network that is replaced")
    save.add_argument("--full", action="store_true", help="float32 weights, not half precision")
    save.add_argument("--license", help="of the weights, as the Hub names it, such as apache-2.0")
    save.add_argument("--data", help="prepared store, where it is no longer where the run had it")
    save.add_argument("--device", help="to compute the figures on")
    given = parser.parse_args()
    if given.command == "list":
        networks = list_shipped()
        print(*(_describe(*entry) for entry in networks.items()) if networks else ("none so far",), sep="\n")
        return
    try:
        config = _find_run(given.run, given.data, given.device)
        folder = save_pretrained(config, in_project(given.folder), not given.full, given.license)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(_describe(folder.name, folder))


if __name__ == "__main__":
    main()
