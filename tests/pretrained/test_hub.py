"""Networks on the Hugging Face Hub, which is a server of this machine here."""

import http.server
import os
import subprocess
import sys
import threading

import pytest
import torch
from huggingface_hub import constants

from bpilib.errors import MissingInputError
from bpilib.pretrained import from_pretrained
from bpilib.system.files import PROJECT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Answers as the Hub does, with the files of a folder as the repository someone/acted_bpi_joint.

    Attributes:
        folder: of the files.
        sizes: of files that have another size than they have.
        asked: paths that were asked for.
    """

    def __init__(self, folder):
        self.folder, self.sizes, self.asked = folder, {}, []
        hub = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def answer(self, with_content):
                hub.asked.append(self.path)
                parts = self.path.split("/")
                status, headers, content = hub.find(parts[1:3], parts[4], "/".join(parts[5:]))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_content:
                    self.wfile.write(content)

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def find(self, repository, revision, file):
        """Status, headers and content for a file."""
        if repository != ["someone", "acted_bpi_joint"]:
            return 404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"}, b""
        if revision not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound", "Content-Length": "0"}, b""
        if not (self.folder / file).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"}, b""
        content = (self.folder / file).read_bytes()
        size = self.sizes.get(file, len(content))
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{file}"', "Content-Length": str(size)}, content

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The Hub, and a cache of one's own."""
    hub = Hub(folder)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.close()


def same(network, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_a_network_is_downloaded_once_and_then_there_offline(hub, folder, monkeypatch):
    assert same(from_pretrained("someone/acted_bpi_joint@v1"), from_pretrained(folder))
    fetched = [path for path in hub.asked if path.endswith("safetensors")]
    assert fetched and all(COMMIT in path for path in fetched)  # both files are of one commit
    assert not any("README" in path for path in hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert same(from_pretrained("someone/acted_bpi_joint@v1"), from_pretrained(folder))
    assert not hub.asked


def test_what_is_not_there_is_said(hub, tmp_path, monkeypatch):
    with pytest.raises(MissingInputError, match="no 'nobody/acted_bpi_joint' on the Hub, or none that may be"):
        from_pretrained("nobody/acted_bpi_joint")
    with pytest.raises(MissingInputError, match="someone/acted_bpi_joint on the Hub has no revision 'v2'"):
        from_pretrained("someone/acted_bpi_joint@v2")
    hub.folder = tmp_path
    with pytest.raises(MissingInputError, match=r"someone/acted_bpi_joint on the Hub has no config\.json: expected"):
        from_pretrained("someone/acted_bpi_joint")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingInputError, match=r"can't be had from the Hub .*Offline: name a folder with"):
        from_pretrained("someone/acted_bpi_joint")


def test_a_file_that_is_too_large_is_not_fetched(hub):
    hub.sizes["model.safetensors"] = 1 << 40
    with pytest.raises(ValueError, match=r"model\.safetensors has 1099511627776 bytes, more than"):
        from_pretrained("someone/acted_bpi_joint")
    hub.sizes["config.json"] = 1 << 30
    with pytest.raises(ValueError, match=r"config\.json has 1073741824 bytes, more than"):
        from_pretrained("someone/acted_bpi_joint@v1")


def test_a_mistyped_folder_of_the_project_is_not_looked_for_elsewhere(hub):
    assert (PROJECT / "notebooks").is_dir()
    for name in ("notebooks/bpi_joint_seed0", "/outputs/a", "./a/b", "a//b", "a/b/c", "a/..", "https://a/b"):
        with pytest.raises(MissingInputError, match="no pretrained network"):
            from_pretrained(name)
    assert not hub.asked


@pytest.mark.slow
def test_a_fresh_process_finds_the_hub_by_its_environment(hub, tmp_path):
    code = "from bpilib.reference import from_pretrained; print(len(from_pretrained('someone/acted_bpi_joint').parts))"
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout == "3\n"
    assert (tmp_path / "home/hub/models--someone--acted_bpi_joint").is_dir()
