"""The commands as scripts use them: codes, stdout, stderr, repetition, refusal."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ireu_cli.cli.exit_codes import ExitCode, code_of
from ireu_cli.cli.output import Terminal, speed_of
from ireu_cli.config import load_config
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.errors import (
    ArtifactError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    IreuError,
    ModelError,
    PhotoError,
    UsageError,
    VanishedEditError,
)
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.store.artifacts import read_delta, read_mask
from tests.conftest import STEPS, Run, run_ireu


def digests(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ireu" not in path.parts
    }


def test_exit_codes_of_every_error() -> None:
    table = {
        UsageError: 2,
        ConfigError: 3,
        PhotoError: 3,
        ArtifactError: 3,
        ModelError: 3,
        DivergedError: 3,
        VanishedEditError: 3,
        InterruptedRunError: 130,
        IreuError: 1,
    }
    for kind, code in table.items():
        assert code_of(kind("fact", "remedy")) == code
    assert str(IreuError("It is so", "Do this")) == "It is so. Do this."


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["locate", "--nonsense"], ["unlearn"], ["locate", "--seed", "x"], ["locate", "--set", "noequals"]],
)
def test_usage_errors_exit_2(arguments: list[str], tmp_path: Path) -> None:
    assert run_ireu(*arguments, cwd=tmp_path).code == ExitCode.USAGE


def test_stdout_is_the_path_or_one_json_object(job: Path) -> None:
    plain = run_ireu("locate", cwd=job)
    assert plain.out == "mask.pt\n"
    quiet = run_ireu("locate", "--json", "--quiet", cwd=job)
    assert quiet.json["artifact"] == "mask.pt"
    assert quiet.json["reused"] is True
    assert quiet.json["state"] == "complete"
    verified = run_ireu("verify", "--delta", "delta.safetensors", "--json", "--quiet", cwd=job)
    assert verified.json["report"]["outcome"] in {"pass", "fail"}
    assert verified.code == {"pass": 0, "fail": 4}[verified.json["report"]["outcome"]]
    assert verified.err == quiet.err == ""


def test_json_errors_are_one_object_too(job: Path) -> None:
    found = run_ireu("unlearn", "--mask", "none.pt", "--json", cwd=job)
    assert found.code == 3
    assert found.json["exit_code"] == 3
    assert "none.pt" in found.json["error"]


@pytest.mark.parametrize("arguments", [("unlearn", "--bogus"), ("verify",), ("unlearn",)])
def test_a_command_line_that_cannot_be_read_is_one_object_too(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = run_ireu(*arguments, "--json", cwd=tmp_path)
    assert (found.code, found.json["exit_code"]) == (2, 2)
    assert found.err


def test_the_settings_are_not_overwritten(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_ireu("unlearn", "--mask", "mask.pt", "-o", "ireu.toml", "--force", cwd=job)
    assert (found.code, "ireu.toml is also an input" in found.err) == (2, True), found.err
    monkeypatch.setenv("IREU_CONFIG", "mask.pt.json")
    found = run_ireu("locate", "-o", "mask.pt.json", "--force", cwd=job)
    assert (found.code, "mask.pt.json is also an input" in found.err) == (2, True), found.err


def test_repeating_a_complete_step_changes_no_byte(job: Path) -> None:
    before = digests(job)
    for arguments in (
        ["locate"],
        ["unlearn", "--mask", "mask.pt", "--steps", STEPS],
        ["verify", "--delta", "delta.safetensors"],
        ["export", "--allow-failed", "--delta", "delta.safetensors"],
    ):
        found = run_ireu(*arguments, cwd=job)
        assert found.code in {0, 4}
        assert "already complete" in found.err
    assert digests(job) == before


def test_forced_repetition_gives_the_same_bytes(fresh: Path) -> None:
    before = digests(fresh)
    for arguments in (
        ["locate"],
        ["unlearn", "--mask", "mask.pt", "--steps", STEPS],
        ["verify", "--delta", "delta.safetensors"],
        ["export", "--allow-failed", "--delta", "delta.safetensors"],
    ):
        assert run_ireu(*arguments, "--force", cwd=fresh).code in {0, 4}
    after = digests(fresh)
    assert after.keys() == before.keys()
    for name in after:
        if name.endswith(".json") and b'"checksum"' in after[name]:
            assert json.loads(after[name])["digest"] == json.loads(before[name])["digest"]
        else:
            assert after[name] == before[name], name


def test_other_parameters_are_refused_without_force(fresh: Path) -> None:
    found = run_ireu("locate", "--top", "0.3", cwd=fresh)
    assert found.code == 3
    assert "locate.top_fraction = 0.4" in found.err
    assert "--force" in found.err
    assert run_ireu("locate", "--top", "0.3", "--force", cwd=fresh).code == 0
    assert read_mask(fresh / "mask.pt").kept == round(0.3 * 96)
    child = run_ireu("verify", "--delta", "delta.safetensors", "-o", "again", cwd=fresh)
    assert child.code in {0, 4}  # the delta's own chain is untouched by a new mask
    stale = run_ireu("unlearn", "--mask", "mask.pt", "--steps", STEPS, cwd=fresh)
    assert stale.code == 3
    assert "another input artifact" in stale.err


def test_foreign_files_are_not_overwritten(fresh: Path) -> None:
    (fresh / "mine.pt").write_text("mine")
    assert run_ireu("locate", "-o", "mine.pt", cwd=fresh).code == 3
    assert (fresh / "mine.pt").read_text() == "mine"
    (fresh / "folder").mkdir()
    (fresh / "folder" / "file").write_text("mine")
    assert run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "folder", cwd=fresh).code == 3
    forced = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "folder", "--force", cwd=fresh)
    assert forced.code == 3
    assert "1 files that ireu did not write" in forced.err
    assert digests(fresh / "folder") == {"file": b"mine"}
    for out in (".", "..", "/"):
        assert run_ireu(
            "export", "--allow-failed", "--delta", "delta.safetensors", "-o", out, "--force", cwd=fresh
        ).code in {2, 3}
    assert run_ireu("locate", "-o", "folder", "--force", cwd=fresh).code == 3
    assert (
        run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "mine.pt", "--force", cwd=fresh).code
        == 3
    )
    assert run_ireu("unlearn", "--mask", "mask.pt", "-o", "./mask.pt", "--force", cwd=fresh).code == 2
    assert (fresh / "faces").exists()
    assert (fresh / "mine.pt").read_text() == "mine"


def test_steps_refuse_the_wrong_kind_of_parent(fresh: Path) -> None:
    found = run_ireu("verify", "--delta", "mask.pt", cwd=fresh)
    assert found.code == 3
    assert "result of locate" in found.err
    shutil.copy(fresh / "mask.pt", fresh / "copy.pt")
    found = run_ireu("unlearn", "--mask", "copy.pt", cwd=fresh)
    assert found.code == 3
    assert "manifest" in found.err


def test_another_encoder_is_refused_and_both_are_named(fresh: Path, tiny_folder: Path) -> None:
    found = run_ireu("unlearn", "--mask", "mask.pt", "--encoder", tiny_folder, "-o", "x.safetensors", cwd=fresh)
    assert found.code == 3
    ours = load_encoder(EncoderParams(source=str(fresh / "encoder")), "cpu").fingerprint
    other = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").fingerprint
    assert ours in found.err
    assert other in found.err
    assert "--tap" in run_ireu("unlearn", "--mask", "mask.pt", "--tap", "last", "-o", "x.safetensors", cwd=fresh).err


def test_verbose_shows_where_values_come_from(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IREU_RUN__BATCH_SIZE", "8")
    found = run_ireu("locate", "-v", "--seed", "0", cwd=job)
    assert 'encoder.tap = "pooled"  (file)' in found.err
    assert "run.batch_size = 8  (environment)" in found.err
    assert "seed = 0  (flag)" in found.err
    assert "unlearn.alpha = 100.0  (default)" in found.err


def test_artifacts_hold_no_names_paths_or_photo_digests(job: Path) -> None:
    import hashlib

    photo = next((job / "faces").rglob("*.png"))
    secrets = [b"person-00", str(job).encode(), b"faces/", hashlib.sha256(photo.read_bytes()).hexdigest().encode()]
    for name, data in digests(job).items():
        if not name.startswith(("faces", "others", "encoder/", "ireu.toml")):
            for secret in secrets:
                assert secret not in data, f"{secret!r} in {name}"


def test_reach_is_said_before_the_work_starts(fresh: Path) -> None:
    found = run_ireu(
        "unlearn", "--mask", "mask.pt", "--steps", "1", "--layers", "block:3", "-o", "last.safetensors", cwd=fresh
    )
    assert found.code == 0
    assert "does NOT reach penultimate" in found.err
    assert all(".layers.3." in name for name in read_delta(fresh / "last.safetensors").tensors)


@pytest.mark.parametrize("method", ["variance", "random", "all"])
def test_other_locators(fresh: Path, method: str) -> None:
    assert run_ireu("locate", "--method", method, "-o", f"{method}.pt", cwd=fresh).code == 0
    assert read_mask(fresh / f"{method}.pt").kept == (96 if method == "all" else 38)


@pytest.mark.parametrize("tap", ["image_embeds", "penultimate", "last"])
def test_every_tap_goes_through_all_steps(fresh: Path, tap: str) -> None:
    assert run_ireu("locate", "--tap", tap, "-o", "m.pt", cwd=fresh).code == 0
    assert run_ireu("unlearn", "--mask", "m.pt", "--steps", "3", "-o", "d.safetensors", cwd=fresh).code == 0
    found = run_ireu("verify", "--delta", "d.safetensors", "-o", "r", "--json", cwd=fresh)
    assert found.code in {4, 5}
    assert found.json["tap"] == tap
    assert run_ireu("export", "--allow-failed", "--delta", "d.safetensors", "-o", "e", cwd=fresh).code == 0


def test_global_needs_no_other_mask(fresh: Path) -> None:
    assert (
        run_ireu(
            "unlearn", "--mask", "mask.pt", "--method", "global", "--steps", "3", "-o", "g.safetensors", cwd=fresh
        ).code
        == 0
    )


def test_pairs_brought_by_the_user(fresh: Path) -> None:
    for photo in (fresh / "faces" / "person-00").iterdir():
        folder = fresh / "pairs" / "person-00" / photo.stem
        folder.mkdir(parents=True)
        shutil.copy(fresh / "others" / "person-05" / "00.png", folder / "a.png")
    found = run_ireu(
        "locate", "--set", "locate.swapper=pairs", "--set", "locate.pairs=pairs", "-o", "p.pt", "--json", cwd=fresh
    )
    assert found.code == 0
    assert found.json["metrics"]["evidence"]["partners"] == 1
    shutil.rmtree(fresh / "pairs" / "person-00" / "00")
    shutil.rmtree(fresh / "pairs" / "person-00" / "01")
    lacking = run_ireu(
        "locate",
        "--set",
        "locate.swapper=pairs",
        "--set",
        "locate.pairs=pairs",
        "-o",
        "q.pt",
        "--set",
        "data.max_photos=10",
        cwd=fresh,
    )
    assert lacking.code == 3
    assert "photo 1 of person 1 has no swapped version (2 such photos)" in lacking.err


def test_no_photo_is_encoded_twice(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    original = Encoder.encode

    def counting(encoder: Encoder, pixels: torch.Tensor, tap: Tap) -> torch.Tensor:
        if not torch.equal(pixels, encoder.null_pixels()):
            encoded.append(len(pixels))
        return original(encoder, pixels, tap)

    monkeypatch.setattr(Encoder, "encode", counting)
    shutil.rmtree(fresh / ".ireu" / "features")
    # The target's photos, their swaps, and four photos of each retained person, with whom the target's are compared.
    retain = json.loads((fresh / "mask.pt.json").read_text())["retain"]
    wanted = 5 + 5 * 10 + 4 * len(retain)
    assert run_ireu("locate", "--force", cwd=fresh).code == 0
    assert sum(encoded) == wanted
    assert run_ireu("locate", "--force", cwd=fresh).code == 0
    assert sum(encoded) == wanted


def test_bad_photos_can_be_skipped(fresh: Path) -> None:
    (fresh / "faces" / "person-00" / "zz.png").write_bytes(b"")
    stopped = run_ireu("locate", "--set", "data.max_photos=11", "-o", "x.pt", cwd=fresh)
    assert stopped.code == 3
    assert "photo 11 of person 1 is empty (0 bytes)" in stopped.err
    assert "--bad-photos skip" in stopped.err
    assert "zz.png" not in stopped.err
    named = run_ireu("locate", "--set", "data.max_photos=11", "-o", "x.pt", "-v", cwd=fresh)
    assert "photo 11 of person 1 (faces/person-00/zz.png) is empty" in named.err
    skipped = run_ireu(
        "locate", "--set", "data.max_photos=11", "-o", "x.pt", "--bad-photos", "skip", "--json", cwd=fresh
    )
    assert skipped.code == 0
    assert skipped.json["metrics"]["evidence"]["photos"] == 10
    assert "1 unusable photos skipped" in skipped.err
    assert "zz.png" not in skipped.err
    told = run_ireu("locate", "--set", "data.max_photos=11", "-o", "y.pt", "--bad-photos", "skip", "-v", cwd=fresh)
    assert "target photos: photo 11 of person 1 (faces/person-00/zz.png) is empty (0 bytes)" in told.err


def test_a_targets_photo_does_not_count_as_retained(fresh: Path) -> None:
    shutil.copy(fresh / "faces" / "person-00" / "00.png", fresh / "others" / "person-09" / "same.png")
    found = run_ireu("locate", "-o", "x.pt", cwd=fresh)
    assert "1 photos are also photos of targets" in found.err


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ireu_cli", *arguments]
    # A test runner in the background may have inherited an ignored SIGINT; a user's shell has not.
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    )


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_writes_a_checkpoint_and_resuming_gives_the_same_bytes(fresh: Path, number: int) -> None:
    arguments = ["unlearn", "--mask", "mask.pt", "--steps", "150", "--run-dir", ".ireu"]
    assert run_ireu(*arguments, "-o", "whole.safetensors", cwd=fresh).code == 0
    with start(*arguments, "-o", "parts.safetensors", "--set", "run.checkpoint_seconds=0", cwd=fresh) as process:
        wait_for_checkpoint(fresh)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Run the same command again" in err
    assert not (fresh / "parts.safetensors").exists()
    resumed = run_ireu(*arguments, "-o", "parts.safetensors", cwd=fresh)
    assert resumed.code == 0
    assert "continuing from step" in resumed.err
    assert (fresh / "parts.safetensors").read_bytes() == (fresh / "whole.safetensors").read_bytes()


def wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list((folder / ".ireu" / "running").glob("*/checkpoint.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_do_not_write_the_same_output(fresh: Path) -> None:
    arguments = ["unlearn", "--mask", "mask.pt", "--steps", "100000", "-o", "x.safetensors"]
    with start(*arguments, "--set", "run.checkpoint_seconds=0", cwd=fresh) as process:
        wait_for_checkpoint(fresh)
        second = run_ireu(*arguments, cwd=fresh)
        process.kill()
    assert second.code == 3
    assert "Another ireu process" in second.err


def test_a_run_that_diverges_stops_without_an_artifact(fresh: Path) -> None:
    found = run_ireu(
        "unlearn",
        "--mask",
        "mask.pt",
        "--set",
        "unlearn.learning_rate=5",
        "--steps",
        "300",
        "-o",
        "x.safetensors",
        cwd=fresh,
    )
    assert found.code == 3
    assert "at step" in found.err
    assert not (fresh / "x.safetensors").exists()


def test_json_goes_through_a_pipe(job: Path) -> None:
    reader = "import json, sys; print(json.load(sys.stdin)['tap'])"
    command = f'{sys.executable} -m ireu_cli locate --json --quiet | {sys.executable} -c "{reader}"'
    done = subprocess.run(command, shell=True, cwd=job, capture_output=True, text=True, check=True)
    assert done.stdout == "pooled\n"


def test_samples_refuse_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    found: Run = run_ireu("samples", tmp_path)
    assert found.code == 3
    assert run_ireu("samples", tmp_path, "--force").code == 3
    assert (tmp_path / "x").read_text() == "mine"
    assert run_ireu("samples", tmp_path / "one").code == 0
    assert "not empty" in run_ireu("samples", tmp_path / "one").err
    first = digests(tmp_path / "one")
    assert run_ireu("samples", tmp_path / "one", "--force").code == 0
    assert digests(tmp_path / "one") == first


def test_the_seed_of_the_samples_decides_who_is_unlearned(tmp_path: Path) -> None:
    everybody, targets = set(), []
    for seed in range(4):
        assert run_ireu("samples", tmp_path / str(seed), "--seed", seed).code == 0
        chosen, rest = ({p.name for p in (tmp_path / str(seed) / g).iterdir()} for g in ("faces", "others"))
        assert len(chosen) == 1
        assert not chosen & rest
        everybody |= {frozenset(chosen | rest)}
        targets.append(chosen.pop())
    assert len(everybody) == 1
    assert len(set(targets)) > 1


def test_seeds_change_what_is_drawn(fresh: Path) -> None:
    assert run_ireu("locate", "--seed", "1", "-o", "seed1.pt", cwd=fresh).code == 0
    assert not torch.equal(read_mask(fresh / "seed1.pt").score, read_mask(fresh / "mask.pt").score)


LOST = """
import os, signal, sys
from ireu_cli.cli import app
from ireu_cli.locating import run
from ireu_cli.errors import ModelError

def lose(*_arguments, **_more):
    try:
        os.kill(os.getpid(), signal.SIGINT) if {hears} else None
    except KeyboardInterrupt:
        pass
    raise {error}

run.run_locate = lose
sys.argv = ["ireu", "locate", "--json"]
app.run()
"""


@pytest.mark.parametrize(
    ("error", "hears", "code"),
    [
        ("ImportError('cannot load module more than once per process')", True, 130),
        ("ImportError('cannot load module more than once per process')", False, 1),
        ("ModelError('The encoder is not usable', 'Use another')", True, 130),
        ("ModelError('The encoder is not usable', 'Use another')", False, 3),
    ],
)
def test_an_interruption_that_a_library_swallows_is_one(error: str, hears: bool, code: int, tmp_path: Path) -> None:
    script = LOST.format(hears=hears, error=error)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=_hear_interrupts,
    )  # fmt: skip
    assert done.returncode == code
    if hears:
        assert json.loads(done.stdout)["exit_code"] == 130
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [KeyboardInterrupt, InterruptedRunError])
def test_an_interruption_between_checkpoints_loses_nothing(fresh: Path, number: type[BaseException]) -> None:
    """Checkpoints by time are far apart here; the one on the way out is what is left."""
    from ireu_cli.opening import open_session
    from ireu_cli.unlearning.checkpoints import Keeper
    from ireu_cli.unlearning.ireu.published import TrainState

    session = open_session(
        "unlearn",
        load_config(None, {}, {"run.run_dir": fresh / ".ireu", "encoder.source": str(fresh / "encoder")}),
        Terminal(quiet=True, verbose=False),
        force=False,
    )
    keep = Keeper(session, "identity")

    def stopped(_count: int, _words: str) -> None:
        raise number if number is KeyboardInterrupt else number("Interrupted", "Go on")

    with pytest.raises(number):
        keep.on_step(stopped)(TrainState(3, {"w": torch.ones(2)}, losses=torch.ones(3, 2)))
    found = session.run.read_checkpoint("identity")
    assert found is not None
    assert found[1] == {"step": 3}


def test_another_run_folder_cannot_say_which_photos_were_used(fresh: Path) -> None:
    """Its keyed digests match nothing: used photos and people would silently count as never seen."""
    everything = ["--encoder", "encoder", "--targets", "faces", "--retain", "others", "--run-dir", "other"]
    found = run_ireu("verify", "--delta", "delta.safetensors", *everything, "-o", "r", cwd=fresh)
    assert found.code == 3
    assert "is not the one that unlearn ran with" in found.err
    assert not (fresh / "r").exists()
    assert run_ireu("unlearn", "--mask", "mask.pt", "--run-dir", "other", "-o", "x.safetensors", cwd=fresh).code == 3


def test_photos_that_only_locating_used_are_not_unseen(fresh: Path) -> None:
    assert run_ireu("locate", "--max-photos", "8", "-o", "m.pt", cwd=fresh).code == 0
    assert (
        run_ireu(
            "unlearn", "--mask", "m.pt", "--max-photos", "4", "--steps", "3", "-o", "d.safetensors", cwd=fresh
        ).code
        == 0
    )
    found = run_ireu("verify", "--delta", "d.safetensors", "-o", "r", "--json", cwd=fresh)
    photos = {f["role"]: f["photos"] for f in found.json["report"]["figures"] if f["name"] == "feature_cosine"}
    # Of the ten drawn photos of a person some are nearly alike.
    assert (photos["target-seen"], photos["target-unseen"] + found.json["report"]["copies"]) == (8, 2)


def test_nobody_left_to_measure_is_inconclusive(fresh: Path) -> None:
    assert run_ireu("locate", "--set", "data.retain_holdout=0", "-o", "m.pt", cwd=fresh).code == 0
    assert run_ireu("unlearn", "--mask", "m.pt", "--steps", "3", "-o", "d.safetensors", cwd=fresh).code == 0
    found = run_ireu("verify", "--delta", "d.safetensors", "-o", "r", cwd=fresh)
    assert found.code == ExitCode.INCONCLUSIVE, found.err
    shutil.copytree(fresh / "others" / "person-03", fresh / "one" / "p")
    assert (
        run_ireu("verify", "--delta", "d.safetensors", "--retain", "one", "-o", "s", cwd=fresh).code
        == ExitCode.INCONCLUSIVE
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["locate", "-o", "a" * 300],
        ["locate", "--targets", "a" * 300, "-o", "n.pt"],
        ["locate", "--encoder", "a" * 300, "-o", "n.pt"],
        ["unlearn", "--mask", "a" * 300],
        ["locate", "--config", "a" * 300],
        ["locate", "--run-dir", "a" * 300, "-o", "n.pt"],
        ["locate", "--run-dir", "/proc/nowhere", "-o", "n.pt"],
        ["locate", "-o", "/proc/n.pt"],
        ["unlearn", "--mask", "mask.pt", "--steps", "0", "-o", "n"],
        ["unlearn", "--mask", "mask.pt", "--steps", str(10**13), "-o", "n"],
        ["verify", "--delta", "delta.safetensors", "--set", "verify.bootstrap=100000000000", "-o", "n"],
        ["locate", "--set", "data.landmarks=" + ",".join([".5"] * 10), "-o", "n.pt"],
        ["locate", "--set", "a.b=1"],
        ["locate", "--device", "meta", "-o", "n.pt"],
    ],
)
def test_odd_arguments_end_in_one_sentence(fresh: Path, arguments: list[str]) -> None:
    found = run_ireu(*arguments, cwd=fresh)
    assert found.code in {2, 3}, found.err
    assert len([line for line in found.err.splitlines() if line.startswith("ireu: ")]) == 1
    assert not list(fresh.glob("n*"))


def test_short_help_is_help() -> None:
    assert run_ireu("verify", "-h").out == run_ireu("verify", "--help").out
    assert run_ireu("-h").code == 0


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("speed", "label", "expected"),
    [
        (None, "target photos", ""),
        (3.14, "target photos", "3.1 photos/s"),
        (0.05, "drawing pictures", "3.0 pictures/min"),
        (12.0, "unlearning (block)", "12.0 steps/s"),
    ],
)
def test_speed_is_told_in_words(speed: float | None, label: str, expected: str) -> None:
    assert speed_of(speed, label) == expected


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_sees_a_bar_with_speed(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    screen = _Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal(quiet=quiet, verbose=False).progress("target photos", 30) as advance:
        for _ in range(3):
            advance(10, "so far")
            time.sleep(0.02)
    shown = screen.getvalue()
    assert ("30/30" in shown and "photos/s" in shown and "so far" in shown) == (not quiet)
    assert not (quiet and shown)
