"""Models on the Hub: the real client against a server of our own, with repositories in memory."""

import base64
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import safetensors.torch
import torch

import sciwm
from sciwm.world.hub import is_hub_id
from tests.worlds import molecule_world

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """What the client asks of the Hub to make a repository, to write to it and to read it.

    All files are small ones.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        repositories = self.server.repositories
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            private = wanted.get("private", False) or wanted.get("visibility") == "private"
            repositories.setdefault(name, {})
            self.server.private.setdefault(name, private)
            return self.answer({"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":  # of a model card
            assert json.loads(body)["content"].startswith("---\nlibrary_name: sciwm\n")
            return self.answer({"errors": [], "warnings": []})
        pattern = r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main"
        name, action = re.fullmatch(pattern, self.path).groups()
        if action == "preupload":
            paths = [f["path"] for f in json.loads(body)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": path} | how for path in paths]})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                file = entry["value"]
                repositories[name][file["path"]] = base64.b64decode(file["content"])
        url = f"{self.server.url}/{name}/commit/{COMMIT}"
        return self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        repositories = self.server.repositories
        if found := re.match(r"/api/models/([^/]+/[^/]+?)(/revision/[^/?]+)?(\?|$)", self.path):
            if (name := found[1]) not in repositories:
                return self.refuse("Repository not found", "RepoNotFound")
            siblings = [{"rfilename": f} for f in repositories[name]]
            return self.answer({"id": name, "sha": COMMIT, "siblings": siblings})
        if found := re.match(r"/api/models/([^/]+/[^/]+)/tree/", self.path):
            files = repositories.get(found[1], {})
            tree = [
                {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for f, c in files.items()
            ]
            return self.answer(tree)
        name, file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path).groups()
        if (content := repositories.get(name, {}).get(file)) is None:
            return self.refuse("Entry not found", "EntryNotFound")
        tag = hashlib.sha1(content).hexdigest()
        return self.send(content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def answer(self, value):
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, why, code):
        headers = {"Content-Type": "application/json", "X-Error-Code": code}
        self.send(json.dumps({"error": why}).encode(), headers, status=404)

    def send(self, content, headers, status=200):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repositories, server.private = {}, {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


ROUND_TRIP = """
import sys
import sciwm
world = sciwm.load(sys.argv[1])
print(world.push_to_hub("someone/butane", private=True, message="first"))
sciwm.load("hf://someone/butane", revision="main").save(sys.argv[2])
world.push_to_hub("someone/butane")
for absent in ("someone/absent", "hf://not an id"):
    try:
        sciwm.load(absent)
    except (FileNotFoundError, ValueError) as error:
        print(type(error).__name__, error)
"""


def test_what_is_pushed_is_what_is_loaded(tmp_path, hub):
    pytest.importorskip("huggingface_hub")
    world, _ = molecule_world(tmp_path / "made")
    files = world.save(tmp_path / "world")
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", ROUND_TRIP, str(tmp_path / "world"), str(tmp_path / "again")]
    how = {"env": os.environ | environment, "cwd": tmp_path, "timeout": 240}
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr
    first, absent, invalid = done.stdout.splitlines()
    assert first == f"{hub.url}/someone/butane/commit/{COMMIT}"
    assert absent.startswith("FileNotFoundError")
    assert "someone/absent" in absent
    assert "hf auth login" in absent
    assert invalid.startswith("ValueError got 'hf://not an id', expected 'owner/name'")
    stored = hub.repositories["someone/butane"]
    assert set(stored) == {f.name for f in files} | {"README.md"}
    assert hub.private["someone/butane"]
    for file in files:
        # Entries, also those of a safetensors header, may come in another order.
        read = json.loads if file.suffix == ".json" else safetensors.torch.load
        loaded = (tmp_path / "again" / file.name).read_bytes()
        pushed, saved, again = map(read, (stored[file.name], file.read_bytes(), loaded))
        if file.suffix == ".json":
            assert pushed == saved == again
            continue
        assert pushed.keys() == saved.keys() == again.keys()
        for key, value in saved.items():
            assert torch.equal(pushed[key], value), key
            assert torch.equal(again[key], value), key
    assert 'sciwm.load("someone/butane")' in stored["README.md"].decode()


def test_a_path_is_not_taken_for_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    paths = ("absent", "./owner/name", "/owner/name", "a/b/c", "../name", "owner/name/")
    for text in ("runs/absent", *paths):
        assert not is_hub_id(text)
    assert is_hub_id("owner/name")
    assert is_hub_id("hf://runs/absent")
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        sciwm.load("runs/absent")
    with pytest.raises(ValueError, match="revision 'v1'"):
        sciwm.load("runs/absent", revision="v1")


def test_without_the_client_both_readings_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"'owner/name', which is no folder here; .*sciwm\[hub\]"):
        sciwm.load("owner/name")
