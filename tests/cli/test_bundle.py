"""`profile bundle`: archives packed from wheels that lie here and installed into an empty cache; what is cut, changed or foreign is refused.

The whole way with real wheels and no network is in docs/commands/bundle.md: it takes minutes and a package index.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from profiler import environments
from profiler.bundle import install, manifest, pack
from profiler.environments import EnvironmentSpec
from profiler.errors import EnvironmentError_, StoreError

SPEC = EnvironmentSpec(name="tiny", first_pins=("tiny-one==1.0",), pins=("tiny-two==2.0",), check_imports=("tiny_one", "tiny_two"))


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A pure wheel made by hand: one empty module."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{module}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Packs an archive with the environment `tiny` and a model from an index that is a folder."""
    index = tmp_path / "index"
    wheel(index, "tiny-one", "1.0")
    wheel(index, "tiny-two", "2.0", "Requires-Dist: tiny-one\n")
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"tiny": SPEC})
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "_core_wheels", lambda folder, progress, pip_args: wheel(folder, "slm-profiler", "0"))
    model = tmp_path / "my-model"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def make() -> Path:
        content = pack.Content((SPEC,), {"models/my-model-1": model}, ("my-model-1",))
        pack.pack(content, tmp_path / "slm.tar", print, ["--no-index", "--find-links", str(index)])
        return tmp_path / "slm.tar"

    return make


def test_round_trip_into_an_empty_cache(tiny: Callable[[], Path], tmp_path: Path) -> None:
    archive = tiny()
    assert not (tmp_path / "slm.tar.parts").exists() and not (tmp_path / "slm.tar.new").exists()
    for path in (tmp_path / "index").iterdir():
        path.unlink()  # nothing but the archive is left to install from
    done = install.install(archive, print)
    assert done.environments == ("tiny",)
    assert (Path(done.models[0]) / "config.json").read_text() == "{}"
    built = environments.installed(SPEC)
    assert built is not None and built.versions["tiny-two"] == "2.0"
    assert subprocess.run([str(built.python), "-c", "import tiny_one, tiny_two"]).returncode == 0
    assert [path.name for path in (tmp_path / "cache" / "bundles").iterdir() if path.is_dir()] == []
    assert install.install(archive, print) == done  # twice is once


def test_checksums_in_the_archive_are_those_of_its_members(tiny: Callable[[], Path]) -> None:
    with tarfile.open(tiny()) as tar:
        first = tar.next()
        assert first is not None and first.name == "bundle.json"
        files = json.load(tar.extractfile(first))["files"]  # type: ignore[arg-type]
        for name, wanted in files.items():
            assert sha256(tar.extractfile(name).read()).hexdigest() == wanted  # type: ignore[union-attr]
        assert {"README.txt", "models/my-model-1/config.json", "wheels/tiny/tiny_one-1.0-py3-none-any.whl"} <= set(files)


def test_an_interrupted_pack_goes_on(tiny: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, runs = pack._write, []

    def once(*args: object) -> None:
        runs.append(args)
        if len(runs) == 1:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pack, "_write", once)
    with pytest.raises(KeyboardInterrupt):
        tiny()
    assert not (tmp_path / "slm.tar").exists() and (tmp_path / "slm.tar.parts/wheels/tiny.complete").exists()
    monkeypatch.setattr(pack, "_pip", lambda *args: pytest.fail("what was fetched is fetched again"))
    assert tiny().is_file()


def test_a_cut_archive_installs_nothing_and_the_whole_one_goes_on(tiny: Callable[[], Path], tmp_path: Path) -> None:
    archive = tiny()
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"not a whole archive|is missing"):
        install.install(archive, print)
    assert environments.installed(SPEC) is None and not list((tmp_path / "cache").glob("models/*"))
    archive.write_bytes(whole)
    assert install.install(archive, print).environments == ("tiny",)


def test_a_changed_byte_is_found(tiny: Callable[[], Path]) -> None:
    archive = tiny()
    data = archive.read_bytes()
    at = data.index(b"{}", data.index(b"models/my-model-1/config.json\0"))
    archive.write_bytes(data[:at] + b"[]" + data[at + 2 :])
    with pytest.raises(StoreError, match=r"config.json has sha256"):
        install.install(archive, print)
    assert environments.installed(SPEC) is None


def described(path: Path, **changed: object) -> Path:
    fields = {"format": 1, "profiler_version": "0", "python": manifest.this_python(), "machine": manifest.this_machine()}
    data = json.dumps({**fields, "environments": {}, "models": [], "files": {}, **changed}).encode()
    with tarfile.open(path, "w") as tar:
        head = tarfile.TarInfo("bundle.json")
        head.size = len(data)
        tar.addfile(head, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"python": "3.9"}, "for Python 3.9"),
        ({"machine": "linux-riscv64"}, "for machine linux-riscv64"),
        ({"format": 9}, "format 9"),
        ({"files": {"../../evil": "0"}}, "outside itself"),
        ({"files": {"/etc/evil": "0"}}, "outside itself"),
        ({"environments": {"openvino": "other-pins"}}, "pins others"),
        ({"extra": 1}, "cannot be read"),
    ],
)
def test_foreign_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], says: str) -> None:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StoreError, match=says):
        install.install(described(tmp_path / "x.tar", **changed), print)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("hello")
    for path in (tmp_path / "text.tar", tmp_path / "none.tar"):
        with pytest.raises(StoreError):
            install.install(path, print)


def test_pip_that_cannot_fetch_is_told(tiny: Callable[[], Path], tmp_path: Path) -> None:
    for path in (tmp_path / "index").glob("tiny_two*"):
        path.unlink()
    with pytest.raises(EnvironmentError_, match="'tiny': pip failed"):
        tiny()
    assert not (tmp_path / "slm.tar").exists()
