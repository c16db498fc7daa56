"""The template names the classes as they are, and is refused until it is filled in."""

import pytest
import yaml

from bpilib.text.prompts import PARTS, load_prompts, write_prompts
from bpilib.text.template import make_prompt_template

CLASSES = ["wave", "sit: down", "yes", "挥手", "it's, [so]"]


def test_it_has_every_class_and_part(tmp_path):
    text = make_prompt_template("mine", CLASSES)
    content = yaml.safe_load(text)
    assert content["dataset"] == "mine" and content["classes"] == CLASSES
    assert [entry["name"] for entry in content["prompts"]] == CLASSES
    assert all({*entry} == {"name", "synonyms", *PARTS} for entry in content["prompts"])
    with pytest.raises(ValueError, match="expected `head` to be a text, got None"):
        write_prompts(text, tmp_path / "prompts.yaml", CLASSES)


def test_filled_in_it_is_read(tmp_path):
    content = yaml.safe_load(make_prompt_template("mine", CLASSES))
    for number, entry in enumerate(content["prompts"]):
        entry |= {part: f"{part} moves" for part in PARTS} | {"synonyms": [f"synonym {number}"]}
    path = tmp_path / "prompts.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert load_prompts(path, CLASSES).classes == tuple(CLASSES)
