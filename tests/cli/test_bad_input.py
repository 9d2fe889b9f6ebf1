"""Wrong input gets one line that says what and where, a hint, exit code 2 or 1, never a traceback, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler.cli import main as program

SPEC = 'backends = ["null"]\nisl = 16\nosl = 8\nconcurrency = [1]\n'


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        program.main(list(words))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(stop.value.code or 0), captured.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["sweep", "--backend", "openvino-xeon-int9", "--workload", "chat", "--dry-run"],
            ["openvino-xeon-int9", "did you mean 'openvino-xeon-int"],
        ),
        (["sweep", "--backend", "null", "--workload", "chatt", "--dry-run"], ["chatt", "did you mean 'chat'"]),
        (["sweep", "--backend", "null", "--isl", "16", "--dry-run"], ["isl and osl go together"]),
        (
            ["sweep", "--backend", "null", "--isl", "16", "--osl", "8", "--concurrency", "1,x", "--dry-run"],
            ["--concurrency", "'x' is not a number"],
        ),
        (
            ["sweep", "--backend", "null", "--isl", "16", "--osl", "8", "--duration", "20", "--dry-run"],
            ["--duration", "'20' is not a duration such as 500ms"],
        ),
        (["sweep", "--backend", "null", "--isl", "16", "--osl", "8", "--qos", "ttft_p95<=fast", "--dry-run"], ["ttft_p95<=fast", "^"]),
        (["sweep", "--backend", "null", "--isl", "16", "--osl", "8", "--qos", "tftt_p95<=1s", "--dry-run"], ["ttft"]),
        (["sweep", "--url", "http://127.0.0.1:9/v1", "--isl", "16", "--osl", "8", "--dry-run"], ["--model"]),
        (["sweep", "no-such.toml", "--dry-run"], ["no-such.toml"]),
        (["swep"], ["did you mean 'sweep'"]),
        (["engines", "install", "openvin"], ["openvin", "did you mean 'openvino'"]),
    ],
)
def test_one_line_and_a_hint(capsys: pytest.CaptureFixture[str], words: list[str], says: list[str]) -> None:
    code, err = run(capsys, *words)
    assert code == 2, err
    for text in says:
        assert text in err


def test_unknown_key_names_file_and_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC + "concurency = [2]\n")
    code, err = run(capsys, "sweep", str(path), "--dry-run")
    assert code == 2 and f"{path}: concurency: unknown key" in err and "did you mean 'concurrency'" in err


def test_results_folder_that_is_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    (tmp_path / "results").write_text("mine")
    code, err = run(capsys, "sweep", str(path), "--results", str(tmp_path / "results"))
    assert code == 1 and "results" in err and (tmp_path / "results").read_text() == "mine"


def test_dry_run_shows_cells_and_time_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(program.cli, ["sweep", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "30 cells in 3 engine starts" in done.output and "measuring takes between" in done.output
    assert list(tmp_path.iterdir()) == []
