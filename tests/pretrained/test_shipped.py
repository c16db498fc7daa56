"""The networks that come with the package: small, whole, and as good as they say."""

import pytest
from making import NO_UCLA, ucla_store, ucla_zip

from bpilib.config import resolve
from bpilib.evaluate import evaluate
from bpilib.pretrained import describe_stated, from_pretrained, import_pretrained, list_shipped

NAMES = sorted(list_shipped())
EACH = pytest.mark.parametrize("name", NAMES or [pytest.param("none", marks=pytest.mark.skip("no network is shipped"))])


def test_all_of_them_have_less_than_20_megabytes():
    assert sum(path.stat().st_size for folder in list_shipped().values() for path in folder.iterdir()) < 20e6


@EACH
def test_a_shipped_network_is_whole(name):
    config = from_pretrained(name).config
    assert name.startswith(f"{config['dataset']}_{config['model']}_") and config["dtype"] == "float16"
    card = (list_shipped()[name] / "README.md").read_text()
    assert card.startswith("---\nlicense: ") and f"{config['expected']['top1']:.2f} (" in card


@pytest.mark.slow
@pytest.mark.skipif(ucla_zip() is None, reason=NO_UCLA)
@EACH
def test_a_shipped_network_gives_its_figure(name, tmp_path):
    if from_pretrained(name).config["dataset"] != "ucla":
        pytest.skip("of another data set")
    store = ucla_store(tmp_path)
    config = import_pretrained(resolve(dataset="ucla", data=store, outputs=tmp_path / "outputs", device="cpu"), name)
    said = describe_stated(config, evaluate(config))  # raises where they differ by more than float noise
    assert "all clips: stated" in said and "without copies: stated" in said
