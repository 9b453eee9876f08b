"""Errors that are expected: one sentence, one code, nothing left behind, and -v shows what lies behind."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ireu_cli.cli import commands, program
from ireu_cli.cli.failures import told_of
from ireu_cli.errors import ModelError, UserError
from tests.conftest import run_ireu

STEPS = {"locating": "run_locate", "unlearning": "run_unlearn", "verifying": "run_verify", "exporting": "run_export"}


def steps_do(monkeypatch: pytest.MonkeyPatch, what: Callable[..., object]) -> None:
    """Let every step do something else."""
    for package, name in STEPS.items():
        monkeypatch.setattr(f"ireu_cli.{package}.run.{name}", what)


torch_error = type("OutOfMemoryError", (RuntimeError,), {})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch_error("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch_error("The device has none left"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("bad allocation: std::bad_alloc"),
        ValueError("Unable to allocate 3.00 GiB for an array with shape (1, 2)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object: Cannot allocate memory"),
    ],
    ids=str,
)
def test_too_little_memory_is_one_sentence(error: Exception) -> None:
    behind = ModelError("The encoder is damaged (RuntimeError)", "Use another")
    behind.__context__ = error
    for each in (error, behind):
        told = str(told_of(each))
        for part in ("memory", "run.batch_size", "data.max_megapixels", "--device"):
            assert part in told


def test_other_errors_are_not_about_memory() -> None:
    told = ModelError("The encoder out of memory.safetensors is damaged", "Use another")
    assert told_of(told) is told
    assert told_of(TypeError("x")) is None


@pytest.mark.parametrize("command", ["locate", "unlearn", "verify", "export", "inspect", "samples"])
@pytest.mark.parametrize(
    ("raised", "code", "part"),
    [
        ("MemoryError()", 3, "run.batch_size"),
        ('RuntimeError("can\'t allocate memory")', 3, "run.batch_size"),
        ("PermissionError(13, 'Permission denied', '/some/place')", 3, "/some/place"),
        ("OSError('Consistency check failed')", 3, "A library cannot go on (OSError)"),
        ("OSError(5, 'Input/output error')", 3, "Input/output error"),
        ("OSError(24, 'Too many open files')", 3, "ulimit"),
        ("KeyboardInterrupt()", 130, "Interrupted"),
        ("ValueError('Out of range float values are not JSON compliant')", 3, "is not a number, so no result"),
    ],
)
def test_every_command_tells_expected_errors_alike(
    command: str, raised: str, code: int, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise eval(raised)

    steps_do(monkeypatch, fail)
    monkeypatch.setattr("ireu_cli.samples.write_samples", fail)
    monkeypatch.setattr("ireu_cli.inspecting.run.inspect_encoder", fail)
    more = {"unlearn": ["--mask", "m"], "verify": ["--delta", "d"], "export": ["--delta", "d"]}
    found = run_ireu(command, *more.get(command, ["x"] if command in {"inspect", "samples"} else []), cwd=tmp_path)
    assert found.code == code
    assert part in found.err
    assert len(found.err.splitlines()) == 1
    assert "A file or folder" not in found.err or "refused a file" not in found.err


def test_v_shows_what_lies_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        try:
            raise OSError(13, "Permission denied", "/some/place")
        except OSError:
            raise UserError("It cannot be read", "Use another") from None

    steps_do(monkeypatch, fail)
    assert "/some/place" not in run_ireu("locate", cwd=tmp_path).err
    shown = run_ireu("locate", "-v", cwd=tmp_path).err
    assert "caused by PermissionError" in shown
    assert "/some/place" in shown


def test_a_library_that_exits_does_not_pass_for_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_arguments: object, **_more: object) -> None:
        sys.exit(7)

    steps_do(monkeypatch, leave)
    assert run_ireu("locate", cwd=tmp_path).code == 7


def test_a_bug_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise TypeError("a bug")

    steps_do(monkeypatch, fail)
    with pytest.raises(TypeError, match="a bug"):
        run_ireu("locate", cwd=tmp_path)


@pytest.mark.parametrize("verbose", [False, True])
def test_files_of_people_are_named_under_v_alone(
    verbose: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces" / "erika").mkdir(parents=True)

    def fail(*_arguments: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "faces" / "erika" / "1.jpg"))

    steps_do(monkeypatch, fail)
    found = run_ireu("locate", "--targets", "faces", *(["-v"] if verbose else []), cwd=tmp_path)
    assert found.code == 3
    (first,) = (line for line in found.err.splitlines() if line.startswith("ireu: "))
    assert ("erika" in first) == ("erika" in found.err) == verbose
    assert ("data.targets (-v names it)" in first) != verbose


PATHS = ["--targets", "--retain", "--config", "--run-dir", "-o", "--encoder", "--set"]


@pytest.mark.parametrize("flag", [flag for flag in PATHS if flag != "--set"])
def test_an_empty_flag_is_refused(flag: str, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"x")
    for empty in ("", " "):
        found = run_ireu("locate", flag, empty, cwd=tmp_path)
        assert (found.code, f"{flag} is empty" in found.err) == (2, True), found.err
    assert [path.name for path in tmp_path.iterdir()] == ["one.jpg"]


def test_every_option_that_is_a_path_refuses_an_empty_one(tmp_path: Path) -> None:
    from typing import Annotated, get_args, get_origin, get_type_hints

    seen = 0
    for command in (commands.locate, commands.unlearn, commands.verify, commands.export, commands.samples):
        for name, hint in get_type_hints(command, include_extras=True).items():
            if get_origin(hint) is Annotated and "Path" in str(get_args(hint)[0]):
                seen += 1
                parsers = [part.parser for part in get_args(hint)[1:] if hasattr(part, "parser")]
                assert len(parsers) == 1, f"{command.__name__} {name}"
                assert parsers[0] is not None, f"{command.__name__} {name}"
    assert seen > 15
    for arguments in (["unlearn", "--mask="], ["unlearn", "--merge="], ["verify", "--delta="], ["samples", ""]):
        found = run_ireu(*arguments, cwd=tmp_path)
        assert (found.code, "is empty" in found.err) == (2, True), found.err
    assert run_ireu("inspect", "", cwd=tmp_path).code == 2
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named_with_its_source_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "ireu.toml").write_text('[data]\ntargets = "faces"\n')
    here = tmp_path / "here"
    here.mkdir()
    found = run_ireu("locate", "--config", elsewhere / "ireu.toml", cwd=here)
    assert found.code == 3
    for part in ("faces", "data.targets", str(elsewhere / "ireu.toml"), str(here)):
        assert part in found.err
    assert "given by --targets" in run_ireu("locate", "--targets", "none", cwd=here).err
    monkeypatch.setenv("IREU_DATA__RETAIN", "/none/at/all")
    found = run_ireu("locate", cwd=here)
    assert "/none/at/all, set by IREU_DATA__RETAIN, does not exist" in found.err
    assert not list(here.iterdir())


def test_what_fails_before_anything_is_kept_leaves_no_run_folder(tmp_path: Path) -> None:
    for name in ("faces", "others"):
        (tmp_path / name / "somebody").mkdir(parents=True)
    found = run_ireu("locate", "--targets", "faces", "--retain", "others", cwd=tmp_path)
    assert found.code == 3
    assert run_ireu("locate", "--encoder", "no/such/encoder", cwd=tmp_path).code == 3
    assert run_ireu("unlearn", "--mask", "none.pt", cwd=tmp_path).code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "others"]


@pytest.mark.parametrize("arguments", [["locate"], ["inspect", "portrait-mini"], ["samples", "{}/s"]])
def test_the_working_folder_may_be_gone(arguments: list[str], tmp_path: Path) -> None:
    script = "import os, sys; os.rmdir(os.getcwd()); from ireu_cli.cli import app; app.run()"
    (tmp_path / "gone").mkdir()
    given = [argument.format(tmp_path) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], cwd=tmp_path / "gone", capture_output=True, text=True, check=False,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr == "ireu: The working folder no longer exists. Change to another folder.\n"


@pytest.mark.parametrize(
    ("given", "left"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_that_wait_leave_the_cores_to_others(given: dict[str, str], left: str) -> None:
    """This is set before torch is imported, and only where the user says nothing about it."""
    script = (
        "import os, sys; from ireu_cli.cli import app; "
        "app.main = lambda: print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT')) or 0; app.run()"
    )
    kept = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=kept | given
    )  # fmt: skip
    assert done.stdout == f"False {left}\n"


def test_an_installation_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    script = "import sys; sys.modules['ireu_cli.cli.output'] = None; from ireu_cli.cli import app; app.run()"
    done = subprocess.run(
        [sys.executable, "-c", script, "locate"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: import of ireu_cli.cli.output halted")
    assert "UnboundLocalError" not in done.stderr


def test_help_gives_every_sentence_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        found = " ".join(run_ireu("--help").out.split())
        assert "..." not in found.replace("[ARGS]...", "")
        for command in (commands.inspect, commands.locate, commands.unlearn, commands.verify, commands.export):
            assert " ".join((command.__doc__ or "").split("\n\n")[0].split()) in found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_flags(shell: str, tmp_path: Path) -> None:
    ireu = tmp_path / "ireu"
    ireu.write_text(f"#!{sys.executable}\nfrom ireu_cli.cli.app import run\nrun()\n")
    ireu.chmod(0o755)
    shown = subprocess.run(
        [ireu, "--show-completion", shell], capture_output=True, text=True, check=False,
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "_IREU_COMPLETE" in shown.stdout
    if shell == "bash" and shutil.which("bash"):
        words = {"COMP_WORDS": "ireu verify --del", "COMP_CWORD": "2", "_IREU_COMPLETE": "complete_bash"}
        found = subprocess.run([ireu], capture_output=True, text=True, check=False, env=os.environ | words)
        assert "--delta" in found.stdout, found.stderr
    assert program.app is not None
