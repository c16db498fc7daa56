"""Secrets are not shown or saved; everything else is."""

import pytest
import yaml
from making import tiny_config

from bpilib.config import Config
from bpilib.data import synthetic
from bpilib.plots import clips as clip_plots
from bpilib.runs import saved_config, write_or_check_config
from bpilib.skeleton import UCLA
from bpilib.system.files import mask_notebook, mask_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hunter2@example.org/x.zip", "https://me:***@example.org/x.zip"),
        ("tls://:hunter2@host:8786", "tls://:***@host:8786"),
        ("https://example.org/x?dl=1&access_token=hunter2&v=3", "https://example.org/x?dl=1&access_token=***&v=3"),
        ("export WANDB_API_KEY=hunter2\nexport THREADS=4", "export WANDB_API_KEY=***\nexport THREADS=4"),
        (["PASSWORD=hunter2", "b"], ["PASSWORD=***", "b"]),
        ('raw = "https://h/x?token=hunter2"\n', 'raw = "https://h/x?token=***"\n'),
        ({"raw": ["tls://me:hunter2@h"], "seed": 0}, {"raw": ["tls://me:***@h"], "seed": 0}),
        ("https:/me:hunter2@host/x", "https:/me:***@host/x"),  # as a path is normalised
        ("https://hunter2@github.com/x", "https://***@github.com/x"),
        ("https://me:hun@ter2@host/x", "https://me:***@host/x"),
        ("https://h/x?sv=1&sig=hunter2%3D", "https://h/x?sv=1&sig=***"),
        ("https://h/x?key=hunter2&a=1", "https://h/x?key=***&a=1"),
        ("https://h/x?auth=hunter2", "https://h/x?auth=***"),
        ("export HF_TOKEN='hunter 2' B=1", "export HF_TOKEN=*** B=1"),
        ('export WANDB_KEY="hunter2"', "export WANDB_KEY=***"),
        ("curl -H 'Authorization: Bearer hunter2'", "curl -H 'Authorization: Bearer ***'"),
        ("run --password hunter2 -x", "run --password *** -x"),
        ("password: hunter2", "password: ***"),
        ("PASSPHRASE=hunter2", "PASSPHRASE=***"),
        (("AWS_SECRET_ACCESS_KEY = hunter2",), ("AWS_SECRET_ACCESS_KEY = ***",)),
    ],
)  # fmt: skip
def test_secrets_are_masked(text, shown):
    assert mask_secrets(text) == shown


@pytest.mark.parametrize(
    "value",
    ["tcp://host:8786", "gpu1:29400", "monkey=3", "author: me", "C:/x@y", "data/a key/x@y", "keys.npz", "", None, 3,
     [1, 2]],
)  # fmt: skip
def test_other_values_are_not(value):
    assert mask_secrets(value) == value


def test_a_configuration_shows_and_saves_none(tmp_path):
    config = tiny_config(tmp_path, tmp_path, cluster="tls://me:hunter2@host:8786", raw="https://h/x.zip?token=hunter2")
    assert isinstance(config, Config) and config.cluster == "tls://me:hunter2@host:8786"  # for use it is there
    write_or_check_config(config)
    saved = (config.run_directory / "config.yaml").read_text()
    assert "hunter2" not in saved and yaml.safe_load(saved)["cluster"] == "tls://me:***@host:8786"
    assert "hunter2" not in config._repr_html_() and "***" in config._repr_html_()


def test_a_configuration_is_shown_without_secrets_in_every_form(tmp_path):
    config = tiny_config(tmp_path, tmp_path, cluster="tls://me:hunter2@host:8786", raw="https://me:hunter2@h/x",
                         clip_pretrained="https://me:hunter2@h/w.pt", start_from="/runs/x?token=hunter2")  # fmt: skip
    for shown in (repr(config), str(config), str(config.table()), str(config.settings()), config._repr_html_()):
        assert "hunter2" not in shown and "***" in shown


@pytest.mark.parametrize("value", ["/models/token=3/clip.pt", "https://me:hunter2@h/w.pt"])
def test_what_is_compared_is_found_again(tmp_path, value):
    """The path of a weight file is needed again, whatever it looks like; the password of a URL need not be saved."""
    config = tiny_config(tmp_path, tmp_path, clip_pretrained=value)
    write_or_check_config(config)
    (config.run_directory / "last.pt").touch()
    write_or_check_config(config)
    assert saved_config(config).clip_pretrained == value
    path = config.run_directory / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    assert "hunter2" not in str(saved)
    path.write_text(yaml.safe_dump(mask_secrets(saved)))  # as it was saved once
    write_or_check_config(config)
    assert saved_config(config).clip_pretrained == value


def test_the_parameters_of_an_executed_notebook_are_masked_and_nothing_else():
    secret, code = 'cluster = "tls://me:hunter2@host:8786"', {"cell_type": "code", "outputs": []}
    notebook = {
        "metadata": {"papermill": {"parameters": {"cluster": "tls://me:hunter2@host:8786", "seed": 1}}},
        "cells": [
            code | {"metadata": {"tags": ["injected-parameters"]}, "source": secret},
            code | {"metadata": {"tags": ["parameters"]}, "source": "token=None"},
            code | {"metadata": {}, "source": "tokenizer=open_clip.tokenizer"},
        ],
    }
    found = mask_notebook(notebook)
    assert "hunter2" not in str(found) and found["metadata"]["papermill"]["parameters"]["seed"] == 1
    assert [cell["source"] for cell in found["cells"][1:]] == ["token=None", "tokenizer=open_clip.tokenizer"]
    assert mask_notebook({"metadata": {}, "cells": []}) == {"metadata": {}, "cells": []}


def test_what_cells_print_show_and_raise_is_masked_but_no_program_in_a_page():
    """As on the disk: texts are lists of lines. A secret of the parameters is masked wherever it stands."""
    code = {"cell_type": "code", "metadata": {}, "source": ["open('hunter2!x')"]}
    player = "<script>const key = 3; let token = read();</script>"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["cluster tls://me:hunter2!x@host\n", "HF_TOKEN=abc\n"]},
        {"output_type": "error", "ename": "E", "evalue": "password: abc", "traceback": ["\x1b[31mhunter2!x\x1b[0m"]},
        {
            "output_type": "execute_result",
            "data": {
                "text/plain": "https://you:secret@h",
                "text/html": ["<td>hunter2!x</td>", player, '<a href="https://h/x?a=1&amp;token=abc">'],
                "application/json": {"a": ["hunter2!x", 1]},
                "image/png": "hunter2!x",
            },
        },
    ]
    given = {"cluster": "tls://me:hunter2!x@host", "more": {"a": ["--password abc"]}, "seed": 1}
    notebook = {"metadata": {"papermill": {"parameters": given}}, "cells": [code | {"outputs": outputs}]}
    found = mask_notebook(notebook)
    (cell,) = found["cells"]
    data = cell["outputs"][2]["data"]
    assert data.pop("image/png") == "hunter2!x"  # no text
    assert "hunter2" not in str(found) and "abc" not in str(found) and "secret" not in str(found)
    assert cell["source"] == ["open('***')"] and data["application/json"] == {"a": ["***", 1]}
    assert cell["outputs"][0]["text"] == ["cluster tls://me:***@host\n", "HF_TOKEN=***\n"]
    assert player in data["text/html"]


def test_players_stay_as_they_are():
    clip = synthetic.perform(1, 1, 0)[:, None]
    page = clip_plots.animate(clip, UCLA, "key = 1; token=2").data
    notebook = {"metadata": {}, "cells": [{"metadata": {}, "source": "", "outputs": [{"data": {"text/html": page}}]}]}
    assert mask_notebook(notebook)["cells"][0]["outputs"][0]["data"]["text/html"] == page
