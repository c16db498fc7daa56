"""Secrets are not shown or saved; everything else is."""

import pytest
import yaml
from making import tiny_config

from bpilib.config import Config
from bpilib.runs import write_or_check_config
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
    ],
)  # fmt: skip
def test_secrets_are_masked(text, shown):
    assert mask_secrets(text) == shown


@pytest.mark.parametrize("value", ["tcp://host:8786", "gpu1:29400", "data/a key/x@y", "keys.npz", "", None, 3, [1, 2]])
def test_other_values_are_not(value):
    assert mask_secrets(value) == value


def test_a_configuration_shows_and_saves_none(tmp_path):
    config = tiny_config(tmp_path, tmp_path, cluster="tls://me:hunter2@host:8786", raw="https://h/x.zip?token=hunter2")
    assert isinstance(config, Config) and config.cluster == "tls://me:hunter2@host:8786"  # for use it is there
    write_or_check_config(config)
    saved = (config.run_directory / "config.yaml").read_text()
    assert "hunter2" not in saved and yaml.safe_load(saved)["cluster"] == "tls://me:***@host:8786"
    assert "hunter2" not in config._repr_html_() and "***" in config._repr_html_()


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
