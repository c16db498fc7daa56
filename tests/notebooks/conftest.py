"""The synthetic store and two small runs on it, made once by notebooks 01 and 02."""

import pytest
from executed import SMALL, run


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Folders for data and outputs, and the parameters that lead there."""
    folder = tmp_path_factory.mktemp("work")
    return folder, {"data": str(folder / "store"), "outputs": str(folder / "outputs")}


@pytest.fixture(scope="session")
def prepared(places):
    folder, there = places
    return run("01_prepare_data", folder, dataset="synthetic", raw=str(folder / "raw"), **there)


@pytest.fixture(scope="session")
def trained(places, prepared):
    folder, there = places
    return [run("02_train", folder, modality=m, **there, **SMALL) for m in ("joint", "bone")]
