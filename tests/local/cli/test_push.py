"""`modelyard push` against a real S3 server: what it prints is what a Model reads."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli_testing import Project
from modelyard.base.errors import RetryLater
from modelyard.cli import main
from modelyard.storage.digest import digest
from modelyard.storage.push import measure, push
from modelyard.storage.stores import Store
from s3_testing import S3, LossyProxy

_TO = "s3://models/pushed"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def keys(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.credentials().items():
        monkeypatch.setenv(name, value)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    capsys.readouterr()
    assert main(["push", *arguments]) == 0
    found: dict[str, str] = yaml.safe_load(capsys.readouterr().out)
    return found


async def fetched(uri: str, s3: S3, folder: Path) -> Path:
    """All that lies there, as a file or folder."""
    store = await Store.open(uri, credentials=s3.credentials()).settled()
    for entry in await store.entries():
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        body = await store.get(entry.key)
        assert body is not None
        path.write_bytes(body)
    return folder / store.single if store.single else folder


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("names", [("digits.onnx",), ("model.json", "weights/part 1.bin", "weights/empty")])
def test_what_is_printed_is_where_that_content_is_read_again(
    names: tuple[str, ...], s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "digits.onnx"
    for name in names:
        path = tmp_path / name if len(names) == 1 else source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name.endswith("empty") else os.urandom(1000))
    found = printed(capsys, str(source), "--to", _TO)
    assert found["digest"] == digest(source)
    assert found["uri"].startswith(f"{_TO}/{found['digest'].removeprefix('sha256:')}")
    assert found["uri"].endswith("/digits.onnx") == (len(names) == 1)
    assert digest(asyncio.run(fetched(found["uri"], s3, tmp_path / "elsewhere"))) == found["digest"]


@pytest.mark.usefixtures("keys")
def test_what_is_there_already_is_not_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(100))
    first = printed(capsys, str(source), "--to", _TO)
    assert main(["push", str(source), "--to", f"{_TO}/", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(["push", str(source), "--to", _TO]) == 0
    assert "all of it was there already" in capsys.readouterr().err


@pytest.mark.usefixtures("keys")
def test_other_content_under_the_same_name_is_told(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "b.bin"
    source.write_bytes(os.urandom(100))
    found = printed(capsys, str(source), "--to", _TO)
    key = found["uri"].removeprefix("s3://models/")
    asyncio.run(Store.open("s3://models", credentials=s3.credentials()).put(key, b"damaged"))
    assert main(["push", str(source), "--to", _TO]) == 1
    assert "somebody has written another content" in capsys.readouterr().err


async def test_a_large_file_that_changes_while_it_is_sent_is_not_there(s3: S3, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(os.urandom(40 * 2**20))
    found = measure(source)
    store = Store.open("s3://models/changing", credentials=s3.credentials())
    with source.open("r+b") as file:
        file.write(b"other")
    with pytest.raises(RetryLater, match="changed while it was sent"):
        await push(source, found, store, lambda _count: None)
    assert await store.list() == ()
    again = measure(source)
    counted: list[int] = []
    assert (await push(source, again, store, counted.append)).sent == 1
    assert sum(counted) == again.size_bytes


async def test_an_answer_that_is_lost_costs_nothing(s3: S3, tmp_path: Path) -> None:
    source = tmp_path / "c.bin"
    source.write_bytes(os.urandom(100))
    lost: list[bytes] = []

    def decide(head: bytes) -> str:
        if head.startswith(b"PUT") and not lost:
            lost.append(head)
            return "drop-reply"
        return "pass"

    proxy = LossyProxy(s3.port, decide)
    try:
        store = Store.open("s3://models/lossy", credentials=s3.credentials(proxy.port))
        made = await push(source, measure(source), store, lambda _count: None)
    finally:
        proxy.close()
    assert lost
    assert [each.key for each in await Store.open("s3://models/lossy", credentials=s3.credentials()).list()] == [
        made.uri.removeprefix("s3://models/lossy/")
    ]


def test_keys_may_lie_in_a_file(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, keys = tmp_path / "d.bin", tmp_path / "keys.env"
    source.write_bytes(b"d")
    keys.write_text("# of the store\n\n" + "".join(f"{name}={value}\n" for name, value in s3.credentials().items()))
    assert printed(capsys, str(source), "--to", _TO, "--credentials", str(keys))["uri"]
    keys.write_text("AWS_ACCESS_KEY_ID\n")
    assert main(["push", str(source), "--to", _TO, "--credentials", str(keys)]) == 1
    told = capsys.readouterr().err
    assert "line 1 is not NAME=VALUE" in told


@pytest.mark.usefixtures("keys")
def test_the_settings_say_where_to_and_a_laptop_needs_no_pushing(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "e.bin"
    source.write_bytes(b"e")
    assert main(["push", str(source)]) == 1
    assert "nothing need be pushed" in capsys.readouterr().err
    settings: dict[str, Any] = {"kind": "ConfigMap", "apiVersion": "v1"}
    settings["metadata"] = {"name": "modelyard", "namespace": "modelyard-system"}
    settings["data"] = {"settings.yaml": f"modelStore: {{uri: {_TO}}}"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert main(["apply", "-f", str(tmp_path / "settings.yaml")]) == 0
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text((tmp_path / ".modelyard" / "kubeconfig").read_text())
    monkeypatch.setenv("KUBECONFIG", str(elsewhere))
    context = yaml.safe_load(elsewhere.read_text())["current-context"]
    assert printed(capsys, str(source), "--context", context)["uri"].startswith(_TO)


def test_a_place_that_is_no_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_bytes(b"f")
    assert main(["push", str(tmp_path / "f"), "--to", str(tmp_path)]) == 1
    assert "expected s3://BUCKET/PREFIX" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "nothing"), "--to", _TO]) == 1
    assert "there is nothing at" in capsys.readouterr().err
