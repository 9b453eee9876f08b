"""`ireu deploy`, and `ireu check` of a service: what is loaded is what was exported, or it is said what is loaded."""

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from ireu_cli.errors import ServiceError
from ireu_cli.serving.repository import Repository
from ireu_cli.serving.service import Service, checked_url
from ireu_cli.store.files import file_sha256
from ireu_cli.store.manifests import read_manifest
from tests.conftest import Run, plant_manifest, run_ireu
from tests.services.http import Routes, serving
from tests.services.sglang import MODULE, Sglang
from tests.services.triton import Triton

EXPORT = "encoder-unlearned"


def told(*arguments: object, cwd: Path, code: int = 0) -> Any:
    found = run_ireu(*arguments, "--json", cwd=cwd)
    assert found.code == code, found.err + found.out
    return json.loads(found.out)


def events(folder: Path, what: str) -> list[tuple[str, list[str]]]:
    lines = (folder / ".ireu" / "register.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [(entry["outcome"], entry["cases"]) for entry in entries if entry["what"] == what]


@pytest.fixture
def pipeline(fresh: Path) -> Sglang:
    return Sglang(fresh / "encoder")


@pytest.fixture
def url(pipeline: Sglang) -> Iterator[str]:
    with serving(pipeline) as found:
        yield found


class TestSglang:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_an_export_is_loaded_and_found(self, dtype: torch.dtype, fresh: Path) -> None:
        with serving(Sglang(fresh / "encoder", dtype)) as url:
            before = told("check", url, "--record", EXPORT, cwd=fresh, code=4)
            assert before["holds"] == "weights that none of the named exports has"
            assert told("deploy", EXPORT, url, "--check", cwd=fresh, code=4)["verdict"] == "not as recorded"
            done = told("deploy", EXPORT, url, cwd=fresh)
            assert done["deployed"]
            assert done["service"] == "SGLang-Diffusion"
            assert f"in memory, {str(dtype).removeprefix('torch.')}" in done["holds"]
            after = told("check", url, "--record", EXPORT, cwd=fresh)
        assert after["verdict"] == "as recorded"
        assert after["cases"] == done["cases"] == list(read_manifest(fresh / EXPORT / "ireu.json").metrics["cases"])

    def test_a_second_time_changes_nothing(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        told("deploy", EXPORT, url, cwd=fresh)
        assert not told("deploy", EXPORT, url, cwd=fresh)["deployed"]
        assert pipeline.loads == [str(fresh / EXPORT)]

    def test_what_is_held_after_a_restart_is_said(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        told("deploy", EXPORT, url, cwd=fresh)
        pipeline.start(fresh / "encoder")
        assert told("check", url, "--record", EXPORT, cwd=fresh, code=4)["cases"] == []

    def test_a_path_that_the_server_does_not_see(self, fresh: Path, url: str) -> None:
        found = run_ireu("deploy", EXPORT, url, "--path-on-server", "/nowhere", cwd=fresh)
        assert found.code == 3
        assert "still holds what it held before" in found.err
        assert r"missing weight files. \x1b[2J" in found.err
        assert told("check", url, "--record", EXPORT, cwd=fresh, code=4)
        shutil.copytree(fresh / EXPORT, fresh / "seen" / MODULE)
        told("deploy", EXPORT, url, "--path-on-server", str(fresh / "seen"), cwd=fresh)

    def test_a_server_that_only_says_so(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        pipeline.lies = True
        found = run_ireu("deploy", EXPORT, url, cwd=fresh)
        assert found.code == 3
        assert "holds other weights than the export" in found.err
        assert not (fresh / ".ireu" / "register.jsonl").exists() or not events(fresh, "deployment")

    def test_rolling_back_and_forth(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        original = pipeline._checksum()
        refused = run_ireu("deploy", EXPORT, url, "--rollback", cwd=fresh)
        assert refused.code == 3
        assert "does not know" in refused.err
        told("deploy", EXPORT, url, "--before", str(fresh / "encoder"), cwd=fresh)
        (case,) = events(fresh, "deployment")[0][1]
        back = told("deploy", EXPORT, url, "--rollback", cwd=fresh)
        assert back["holds"] == "what it held before the first deployment"
        assert pipeline._checksum() == original
        assert run_ireu("deploy", EXPORT, url, "--rollback", cwd=fresh).code == 3
        told("deploy", EXPORT, url, cwd=fresh)
        told("check", url, "--record", EXPORT, cwd=fresh)
        assert events(fresh, "deployment") == [
            ("served by SGLang-Diffusion", [case]),
            ("taken back from SGLang-Diffusion", [case]),
            ("served by SGLang-Diffusion", [case]),
        ]

    def test_where_the_earlier_weights_lie_may_be_said_later(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        told("deploy", EXPORT, url, cwd=fresh)
        unknown = run_ireu("deploy", EXPORT, url, "--rollback", cwd=fresh)
        assert unknown.code == 3
        assert "--before" in unknown.err
        wrong = run_ireu("deploy", EXPORT, url, "--rollback", "--before", str(fresh / EXPORT), cwd=fresh)
        assert wrong.code == 3
        assert "other weights than the server held earlier" in wrong.err
        assert pipeline.path == fresh / EXPORT
        told("deploy", EXPORT, url, "--rollback", "--before", str(fresh / "encoder"), cwd=fresh)
        assert pipeline.path == fresh / "encoder"

    @pytest.mark.parametrize("moment", ["kill_before", "kill_after"])
    def test_a_server_that_is_killed_meanwhile(self, moment: str, fresh: Path, url: str, pipeline: Sglang) -> None:
        setattr(pipeline, moment, True)
        found = run_ireu("deploy", EXPORT, url, "--before", str(fresh / "encoder"), cwd=fresh)
        assert found.code == 3
        assert "does not answer" in found.err
        setattr(pipeline, moment, False)
        pipeline.is_dead = False
        # Nothing was lost: the same command goes on, and what was there before is still known.
        assert told("deploy", EXPORT, url, cwd=fresh)["deployed"] is (moment == "kill_before")
        told("deploy", EXPORT, url, "--rollback", cwd=fresh)
        assert pipeline.path == fresh / "encoder"

    def test_rolling_back_after_a_deployment_that_was_cut(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        """It puts back what was there before the cut one, and not what was before that."""
        first = fresh / "first"
        shutil.copytree(fresh / EXPORT, first)
        told("deploy", "first", url, "--before", str(fresh / "encoder"), cwd=fresh)
        with torch.no_grad():
            pipeline.model.visual_projection.weight += 1
        assert told("deploy", EXPORT, url, "--rollback", cwd=fresh)["holds"] == "an earlier export"
        told("check", url, "--record", "first", cwd=fresh)
        with torch.no_grad():
            pipeline.model.visual_projection.weight += 1
        # What nobody can put back is no step of the way back.
        assert told("deploy", EXPORT, url, cwd=fresh)["deployed"]
        assert len(json.loads(next((fresh / ".ireu" / "deployments").glob("*.json")).read_text())["served"]) == 2
        told("check", url, "--record", "first", cwd=fresh)
        assert told("deploy", EXPORT, url, "--rollback", cwd=fresh)["holds"].startswith("what it held before")
        assert pipeline.path == fresh / "encoder"

    def test_a_load_that_leaves_a_mixture_is_put_right(
        self, fresh: Path, url: str, pipeline: Sglang, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, own = pipeline._checksum(), pipeline._copy
        torn_once: list[bool] = []

        def torn(tensors: dict[str, torch.Tensor]) -> None:
            if torn_once:
                own(tensors)
                return
            torn_once.append(True)
            own({"visual_projection.weight": tensors["visual_projection.weight"]})
            raise ValueError("torn")

        told("deploy", EXPORT, url, "--before", str(fresh / "encoder"), cwd=fresh)
        told("deploy", EXPORT, url, "--rollback", cwd=fresh)
        tensors = load_file(fresh / EXPORT / "model.safetensors")
        tensors["visual_projection.weight"] += 1
        torn_export = fresh / "torn"
        shutil.copytree(fresh / EXPORT, torn_export)
        save_file(tensors, torn_export / "model.safetensors")
        record = read_manifest(fresh / EXPORT / "ireu.json")
        files = [torn_export / each.name for each in record.outputs]
        plant_manifest(torn_export / "ireu.json", record.model_copy(update={"outputs": ()}), files)
        monkeypatch.setattr(pipeline, "_copy", torn)
        found = run_ireu("deploy", "torn", url, cwd=fresh)
        assert found.code == 3
        assert "What it held before was put back" in found.err
        assert pipeline._checksum() == original

    def test_a_mixture_that_nobody_can_put_right_is_said(
        self, fresh: Path, url: str, pipeline: Sglang, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def torn(_tensors: dict[str, torch.Tensor]) -> None:
            with torch.no_grad():
                pipeline.model.visual_projection.weight += 1
            raise ValueError("torn")

        monkeypatch.setattr(pipeline, "_copy", torn)
        found = run_ireu("deploy", EXPORT, url, cwd=fresh)
        assert (found.code, "AND HOLDS OTHER WEIGHTS THAN BEFORE" in found.err) == (3, True), found.err

    def test_what_is_said_wins_over_what_was_noted(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        shutil.copytree(fresh / EXPORT, fresh / "kept")
        original = shutil.copytree(fresh / "encoder", fresh / "elsewhere")
        told("deploy", EXPORT, url, "--before", "/moved/away", cwd=fresh)
        assert run_ireu("deploy", EXPORT, url, "--rollback", cwd=fresh).code == 3
        told("check", url, "--record", EXPORT, cwd=fresh)
        told("deploy", EXPORT, url, "--rollback", "--before", str(original), cwd=fresh)
        assert pipeline.path == original

    def test_places_and_events_are_told_apart(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        (case,) = told("deploy", EXPORT, url, cwd=fresh)["cases"]

        def due() -> list[str]:
            return list(told("cases", cwd=fresh)["cases"][case]["due"])

        before = due()
        pipeline.start(fresh / "encoder")
        told("check", url, "--record", EXPORT, cwd=fresh, code=4)
        assert due() == before, "who only looks notes nothing"
        told("deploy", EXPORT, url, "--check", cwd=fresh, code=4)
        lines = (fresh / ".ireu" / "register.jsonl").read_text().splitlines()
        places = {json.loads(line).get("place") for line in lines}
        assert len(places) == 2
        assert url not in "".join(lines)
        # One service in two spellings is one place.
        port = url.rsplit(":", 1)[1]
        told("deploy", EXPORT, f"HTTP://127.0.0.1:{port}/", cwd=fresh)
        assert len(list((fresh / ".ireu" / "deployments").glob("*.json"))) == 1
        told("deploy", EXPORT, url, cwd=fresh)
        assert [outcome for outcome, _ in events(fresh, "deployment")] == ["served by SGLang-Diffusion"] * 2

    def test_a_damaged_list_of_deployments(self, fresh: Path, url: str) -> None:
        told("deploy", EXPORT, url, cwd=fresh)
        (file,) = (fresh / ".ireu" / "deployments").glob("*.json")
        for text in ("{", '{"place":"x"}', '{"place":"x","served":[{"digest":"y"}]}'):
            file.write_text(text)
            found = run_ireu("deploy", EXPORT, url, "--rollback", cwd=fresh)
            assert (found.code, "is damaged. Remove it" in found.err) == (3, True), found.err

    def test_weights_that_the_record_does_not_list(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        shutil.copy(fresh / "encoder" / "model.safetensors", fresh / EXPORT / "other.safetensors")
        found = run_ireu("deploy", EXPORT, url, cwd=fresh)
        assert (found.code, "its record does not list" in found.err) == (3, True)
        assert not pipeline.loads

    def test_a_header_of_its_own(self, fresh: Path, pipeline: Sglang) -> None:
        secret = fresh / "token"
        secret.write_text("s3cr3t")
        secret.chmod(0o600)
        given = ("--token-file", secret, "--token-header", "triton-admin")
        with serving(pipeline, "s3cr3t", "triton-admin") as url:
            assert run_ireu("deploy", EXPORT, url, "--token-file", secret, cwd=fresh).code == 3
            assert run_ireu("deploy", EXPORT, url, *given, cwd=fresh).code == 0
        assert run_ireu("deploy", EXPORT, url, *given[:3], "a b", cwd=fresh).code == 3

    def test_a_token(self, fresh: Path, pipeline: Sglang) -> None:
        secret = fresh / "token"
        secret.write_text("s3cr3t\n")
        secret.chmod(0o600)
        with serving(pipeline, "s3cr3t") as url:
            refused = run_ireu("deploy", EXPORT, url, cwd=fresh)
            assert refused.code == 3
            assert "--token-file" in refused.err
            given = run_ireu("deploy", EXPORT, url, "--token-file", secret, "-v", cwd=fresh)
            assert given.code == 0, given.err
            assert "s3cr3t" not in given.out + given.err
        secret.chmod(0o644)
        assert "Everybody" in run_ireu("deploy", EXPORT, "http://localhost:1", "--token-file", secret, cwd=fresh).err
        assert not [path for path in (fresh / ".ireu").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]

    def test_digests_are_those_that_the_server_compares(self, fresh: Path) -> None:
        assert run_ireu("deploy", EXPORT, "--digests", "d.json", "--dtype", "float16", cwd=fresh).code == 0
        held = json.loads((fresh / "d.json").read_text())
        server = Sglang(fresh / EXPORT, torch.float16)
        assert server("POST", "get_weights_checksum", {})[1] == {MODULE: held["module_sha256"]}
        assert server("POST", "update_weights_from_tensor_checker", held)[0] == 200
        names = {name for name, _ in server.model.named_parameters()}
        assert set(held["expected_named_tensors_sha256"]) == names
        server.start(fresh / "encoder")
        assert server("POST", "update_weights_from_tensor_checker", held)[0] == 400

    def test_another_module(self, fresh: Path, url: str) -> None:
        found = run_ireu("check", url, "--record", EXPORT, "--module", "vae", cwd=fresh)
        assert (found.code, "no module vae" in found.err) == (3, True)

    def test_an_export_that_changed_is_not_deployed(self, fresh: Path, url: str, pipeline: Sglang) -> None:
        with (fresh / EXPORT / "model.safetensors").open("ab") as file:
            file.write(b"x")
        found = run_ireu("deploy", EXPORT, url, cwd=fresh)
        assert (found.code, "not as recorded" in found.err) == (3, True)
        assert not pipeline.loads


def network(value: float) -> bytes:
    shape = [1, 3]
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    parts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [1], [value])]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", parts[:1], parts[1:], weights)).SerializeToString())


@pytest.fixture
def place(fresh: Path) -> Path:
    """A job whose exports are networks, and a repository whose model is their original."""
    record = read_manifest(fresh / EXPORT / "ireu.json")
    for number in (1, 2):
        folder = fresh / f"export-{number}"
        folder.mkdir()
        (folder / "glintr100.onnx").write_bytes(network(number))
        metrics = {**record.metrics, "cases": [f"case-{number}"], "edited_encoder": f"{number}" * 64}
        mine = record.model_copy(update={"outputs": (), "metrics": metrics})
        plant_manifest(folder / "ireu.json", mine, [folder / "glintr100.onnx"])
    (fresh / "models" / "arc" / "1").mkdir(parents=True)
    (fresh / "models" / "arc" / "1" / "model.onnx").write_bytes(network(0))
    return fresh


@pytest.fixture
def server(place: Path) -> Triton:
    return Triton(place / "models")


@pytest.fixture
def triton(server: Triton) -> Iterator[tuple[str, ...]]:
    with serving(server) as url:
        yield (url, "--repository", str(server.root), "--model", "arc")


def held(server: Triton) -> list[float]:
    """The weights of the networks in memory."""
    found = [onnx.load_from_string(data) for data in server.loaded.get("arc", {}).values()]
    return [float(onnx.numpy_helper.to_array(one.graph.initializer[0])[0]) for one in found]


def versions(place: Path, model: str = "arc") -> list[int]:
    """Every version in the repository; nothing else may lie there but what Triton overlooks."""
    names = [path.name for path in (place / "models" / model).iterdir()]
    assert {name for name in names if not name.isdecimal()} <= {".ireu.lock", "config.pbtxt"}
    return sorted(int(name) for name in names if name.isdecimal())


class TestTriton:
    def test_an_export_is_loaded_and_found(self, place: Path, server: Triton, triton: tuple[str, ...]) -> None:
        assert told("check", *triton, "--record", "export-1", cwd=place, code=4)["version"] == 1
        done = told("deploy", "export-1", *triton, cwd=place)
        assert (done["version"], done["cases"], held(server)) == (2, ["case-1"], [1.0])
        assert "as version 2" in done["holds"]
        assert told("check", *triton, "--record", "export-1", cwd=place)["verdict"] == "as recorded"
        other = told("check", *triton, "--record", "export-2", "--record", "export-1", cwd=place, code=4)
        assert other["cases"] == ["case-1"]
        assert not told("deploy", "export-1", *triton, cwd=place)["deployed"]
        assert versions(place) == [1, 2]
        assert (place / "models" / "arc" / "2").stat().st_mode & 0o055 == 0o055

    def test_a_model_that_is_not_there_yet(self, place: Path, triton: tuple[str, ...]) -> None:
        new = (*triton[:-1], "new")
        assert told("check", *new, "--record", "export-1", cwd=place, code=4)["holds"] == "nothing"
        assert told("deploy", "export-1", *new, cwd=place)["version"] == 1
        assert run_ireu("deploy", "export-1", *new, "--rollback", cwd=place).code == 3

    def test_what_the_server_does_not_load_is_taken_back(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        (place / "export-2" / "glintr100.onnx").write_bytes(b"no network")
        record = read_manifest(place / "export-1" / "ireu.json").model_copy(update={"outputs": ()})
        plant_manifest(place / "export-2" / "ireu.json", record, [place / "export-2" / "glintr100.onnx"])
        found = run_ireu("deploy", "export-2", *triton, cwd=place)
        assert found.code == 3
        assert "still holds version 1" in found.err
        assert "failed to poll" in found.err
        assert versions(place) == [1]
        server.polls = True
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "--model-control-mode=explicit" in found.err) == (3, True)
        # Such a server may find it by itself.
        assert versions(place) == [1, 2]
        assert held(server) == [0.0]

    def test_rolling_back_step_by_step(self, place: Path, server: Triton, triton: tuple[str, ...]) -> None:
        told("deploy", "export-1", *triton, cwd=place)
        told("deploy", "export-2", *triton, cwd=place)
        assert told("deploy", "export-2", *triton, "--rollback", cwd=place)["cases"] == ["case-1"]
        assert held(server) == [1.0]
        told("check", *triton, "--record", "export-1", cwd=place)
        told("deploy", "export-2", *triton, "--rollback", cwd=place)
        assert held(server) == [0.0]
        assert run_ireu("deploy", "export-2", *triton, "--rollback", cwd=place).code == 3
        # Numbers only grow: what has been loaded once is never another network later.
        assert versions(place) == [1, 2, 3, 4, 5]
        assert events(place, "deployment") == [
            ("served by Triton", ["case-1"]),
            ("served by Triton", ["case-2"]),
            ("taken back from Triton", ["case-2"]),
            ("served by Triton", ["case-1"]),
            ("taken back from Triton", ["case-1"]),
        ]

    @pytest.mark.parametrize("moment", ["kill_before", "kill_after"])
    @pytest.mark.parametrize("restarts", [True, False])
    def test_a_server_that_is_killed_meanwhile(
        self, moment: str, restarts: bool, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        setattr(server, moment, True)
        assert run_ireu("deploy", "export-1", *triton, cwd=place).code == 3
        assert held(server) in ([0.0], [1.0])
        setattr(server, moment, False)
        server.is_dead = False
        if restarts:
            server.start()
        told("deploy", "export-1", *triton, cwd=place)
        assert held(server) == [1.0]
        assert versions(place) == [1, 2]
        told("deploy", "export-1", *triton, "--rollback", cwd=place)
        assert held(server) == [0.0]

    def test_an_answer_that_comes_too_late_takes_nothing_back(
        self, place: Path, server: Triton, triton: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A gateway loses patience, and the server goes on to load; its number stands for that network for good."""
        own = server._load
        monkeypatch.setattr(server, "_load", lambda _name: True)
        server.loses_patience = True
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "Version 2 stays" in found.err) == (3, True), found.err
        assert versions(place) == [1, 2]
        server.loses_patience = False
        own("arc")
        monkeypatch.undo()
        assert not told("deploy", "export-1", *triton, cwd=place)["deployed"]
        assert told("deploy", "export-2", *triton, cwd=place)["version"] == 3

    def test_a_loaded_version_that_is_gone_from_the_repository(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        told("deploy", "export-1", *triton, cwd=place)
        shutil.rmtree(place / "models" / "arc" / "2")
        seen = told("check", *triton, "--record", "export-1", cwd=place, code=4)
        assert "version 2 is loaded" in seen["warnings"][0]
        assert told("deploy", "export-2", *triton, cwd=place)["version"] == 3
        assert held(server) == [2.0]
        assert told("deploy", "export-1", *triton, cwd=place)["version"] == 4
        assert told("deploy", "export-2", *triton, cwd=place)["version"] == 5
        shutil.rmtree(place / "models" / "arc" / "5")
        # The newest one that is left holds it, but the server knows a higher number.
        assert told("deploy", "export-1", *triton, cwd=place)["version"] == 6

    def test_versions_never_take_each_others_place(self, place: Path) -> None:
        repository = Repository(place / "models" / "arc")
        files = [place / f"export-{number}" / "glintr100.onnx" for number in (1, 2)] * 4
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda file: repository.add(file, file_sha256(file), "model.onnx"), files))
        assert sorted(made) == list(range(2, 10))
        for number, file in zip(made, files, strict=True):
            assert (place / "models" / "arc" / str(number) / "model.onnx").read_bytes() == file.read_bytes()

    def test_a_server_that_does_not_say_which_file_it_loads(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        shutil.copy(place / "export-1" / "glintr100.onnx", place / "models" / "arc" / "1" / "model.onnx")
        (place / "models" / "arc" / "1" / "net.onnx").write_bytes(network(0))
        server.file_name = "net.onnx"
        server.start()
        server.hides_config = True
        found = run_ireu("check", *triton, "--record", "export-1", cwd=place)
        assert (found.code, "does not say how arc is configured" in found.err) == (3, True)
        server.hides_config, server.gpu_files = False, {"9.0": "net.onnx"}
        found = run_ireu("check", *triton, "--record", "export-1", cwd=place)
        assert (found.code, "cc_model_filenames" in found.err) == (3, True)

    @pytest.mark.parametrize("words", ["version_policy: { all {} }", 'default_model_filename: "net.onnx"'])
    def test_a_model_that_is_not_loaded_and_not_usual(
        self, words: str, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        server.loaded.clear()
        (place / "models" / "arc" / "config.pbtxt").write_text(words)
        for more in (triton, triton[1:]):
            found = run_ireu("deploy", "export-1", *more, cwd=place)
            assert (found.code, "Load the model first" in found.err) == (3, True), found.err
        assert versions(place) == [1]

    @pytest.mark.parametrize("version", ["0", "1764500000000000000"])
    def test_every_number_that_triton_takes(
        self, version: str, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        told("deploy", "export-1", *triton, cwd=place)
        (place / "models" / "arc" / version).mkdir()
        (place / "models" / "arc" / version / "model.onnx").write_bytes(network(0))
        server.loaded["arc"][int(version)] = network(0)
        seen = told("check", *triton, "--record", "export-1", cwd=place, code=4)
        assert "hold different networks" in seen["warnings"][0]

    def test_what_the_next_start_would_load(self, place: Path, server: Triton, triton: tuple[str, ...]) -> None:
        told("deploy", "export-1", *triton, cwd=place)
        (place / "models" / "arc" / "3").mkdir()
        (place / "models" / "arc" / "3" / "model.onnx").write_bytes(network(0))
        seen = told("check", *triton, "--record", "export-1", cwd=place)
        assert "the next start loads that one" in seen["warnings"][0]
        assert told("deploy", "export-1", *triton, cwd=place)["version"] == 4
        server.start()
        assert held(server) == [1.0]
        assert told("check", *triton, "--record", "export-1", cwd=place)["warnings"] == []

    def test_somebody_elses_version_is_never_taken_back(
        self, place: Path, server: Triton, triton: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (place / "models" / "arc" / "2").mkdir()
        shutil.copy(place / "export-1" / "glintr100.onnx", place / "models" / "arc" / "2" / "model.onnx")
        monkeypatch.setattr(server, "_load", lambda _name: False)
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "Version 2 stays in the repository" in found.err) == (3, True)
        assert versions(place) == [1, 2]

    def test_a_pack_that_names_another_file(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        record = read_manifest(place / "export-1" / "ireu.json").model_copy(update={"outputs": ()})
        files = [place / "export-1" / name for name in ("glintr100.onnx", "det.onnx")]
        files[1].write_bytes(network(7))
        plant_manifest(place / "export-1" / "ireu.json", record, files)
        given = ("deploy", "export-1", "--repository", "models", "--model", "new")
        assert run_ireu(*given, cwd=place).code == 3, "neither of them recognises anybody"
        monkeypatch.setattr("ireu_cli.serving.triton.recogniser_in", lambda folder: folder / "other.onnx")
        found = run_ireu(*given, cwd=place)
        assert (found.code, "no single network" in found.err) == (3, True)

    def test_an_original_beside_the_edited_network_of_a_pack(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        (place / "export-1" / "glintr100.bak.onnx").write_bytes(network(0))
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "its record does not list" in found.err) == (3, True)
        assert held(server) == [0.0]

    def test_a_record_that_cannot_be_noted_is_not_served(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        record = read_manifest(place / "export-1" / "ireu.json")
        odd = record.model_copy(update={"outputs": (), "metrics": {**record.metrics, "cases": ["a\nb"]}})
        plant_manifest(place / "export-1" / "ireu.json", odd, [place / "export-1" / "glintr100.onnx"])
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "no good cases" in found.err) == (3, True)
        assert held(server) == [0.0]

    def test_an_older_version_beside_it_is_no_clean_state(
        self, place: Path, server: Triton, triton: tuple[str, ...]
    ) -> None:
        server.policy = {"all": {}}
        found = run_ireu("deploy", "export-1", *triton, cwd=place)
        assert (found.code, "version_policy" in found.err) == (3, True)
        (place / "models" / "arc" / "2").mkdir()
        shutil.copy(place / "export-1" / "glintr100.onnx", place / "models" / "arc" / "2" / "model.onnx")
        server("POST", "v2/repository/models/arc/load", None)
        assert held(server) == [0.0, 1.0]
        told("check", *triton, "--record", "export-1", cwd=place, code=4)

    def test_another_file_name(self, place: Path, server: Triton, triton: tuple[str, ...]) -> None:
        (place / "models" / "arc" / "1" / "model.onnx").rename(place / "models" / "arc" / "1" / "net.onnx")
        server.file_name = "net.onnx"
        assert told("deploy", "export-1", *triton, cwd=place)["version"] == 2
        assert held(server) == [1.0]
        server.file_name = "../../../ireu.toml"
        found = run_ireu("check", *triton, "--record", "export-1", cwd=place)
        assert (found.code, "default_model_filename" in found.err) == (3, True)

    def test_a_version_may_be_written_without_a_server(self, place: Path) -> None:
        given = ("deploy", "export-1", "--repository", "models", "--model", "arc")
        first, second = run_ireu(*given, cwd=place), run_ireu(*given, cwd=place)
        assert first.out == second.out == "models/arc/2\n"
        assert told(*given, cwd=place) == {"written": "models/arc/2"}
        assert (place / "models/arc/2/model.onnx").read_bytes() == network(1)

    def test_a_model_leads_nowhere_else(self, place: Path) -> None:
        found = run_ireu("deploy", "export-1", "--repository", "models", "--model", "../out", cwd=place)
        assert found.code == 3
        (place / "models" / "link").symlink_to(place / "faces")
        found = run_ireu("deploy", "export-1", "--repository", "models", "--model", "link", cwd=place)
        assert (found.code, "leads out of" in found.err) == (3, True)
        given = ("http://localhost:1", "--repository", "models", "--model", "link")
        found = run_ireu("deploy", "export-1", *given, cwd=place)
        assert (found.code, "leads out of" in found.err) == (3, True)

    def test_folders_of_transformers_are_no_networks(self, place: Path, triton: tuple[str, ...]) -> None:
        found = run_ireu("deploy", EXPORT, *triton, cwd=place)
        assert (found.code, "no single network in ONNX" in found.err) == (3, True)


def always(status: int, body: Any) -> Routes:
    return lambda *_asked: (status, body)


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        (always(200, b"x" * (1 << 25)), "too long"),
        (always(200, b"<html>"), "says no digest"),
        (always(200, [1]), "says no digest"),
        (always(200, {MODULE: 7}), "says no digest"),
        (always(200, {MODULE: "\x1b[2J"}), "says no digest"),
        (always(200, b"[" * 100_000), "says no digest"),
        (always(404, {}), "no get_weights_checksum"),
        (always(500, {"error": "\x1b[2Jlost"}), r"\x1b[2Jlost"),
        (always(400, {"error": "what is s3cr3t?"}), "what is [token]?"),
        (always(302, {"to": "http://127.0.0.1:1/get_weights_checksum"}), "HTTP 302"),
    ],
)  # fmt: skip
def test_what_a_stranger_answers_is_refused_in_one_line(routes: Routes, words: str, job: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cr3t")
    secret.chmod(0o600)
    with serving(routes) as url:
        given = ("--to", "sglang", "--record", job / EXPORT, "--token-file", secret)
        found = run_ireu("check", url, *given, cwd=tmp_path)
    assert found.code == 3
    assert words in found.err
    assert found.err.count("\n") == 1
    assert "\x1b" not in found.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "http://127.0.0.1:9", "--record", EXPORT), 3, "does not answer"),
        (("check", "http://user:pass@localhost", "--record", EXPORT), 3, "password"),
        (("check", "http://", "--record", EXPORT), 3, "no URL"),
        (("check", "http://a..b", "--record", EXPORT), 3, "does not answer"),
        (("check", f"http://{'a' * 70}.example", "--record", EXPORT), 3, "does not answer"),
        (("check", "http://[::1", "--record", EXPORT), 3, "no URL"),
        (("deploy", EXPORT, "http://localhost:1", "--to", "sglang", "--before", "/x\udcff"), 3, "no text"),
        (("deploy", EXPORT, "http://localhost:1", "--to", "sglang", "--path-on-server", "/x\udcff"), 3, "no text"),
        (("check", "http://localhost:1"), 2, "--record"),
        (("check", "http://localhost:1", "--signature", "x"), 2, "no signature"),
        (("check", EXPORT, "--model", "x"), 2, "--model is about a service"),
        (("deploy", EXPORT), 2, "Name the service"),
        (("deploy", EXPORT, "--check", "--rollback"), 2, "Give one"),
        (("deploy", EXPORT, "http://localhost:1", "--digests", "d"), 2, "not clear"),
        (("deploy", EXPORT, "--digests", "d", "--dtype", "int8"), 3, "no precision"),
        (("deploy", EXPORT, "--model", "x"), 2, "--repository"),
        (("deploy", EXPORT, "http://localhost:1", "--to", "vllm"), 3, "no kind of service"),
        (("deploy", EXPORT, "http://localhost:1", "--to", "triton"), 3, "does not say what it holds"),
        (("deploy", EXPORT, "http://localhost:1", "--to", "sglang", "--model", "x"), 3, "says nothing to sglang"),
        (("deploy", "faces", "http://127.0.0.1:9", "--to", "sglang"), 3, "is no export"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(arguments: tuple[str, ...], code: int, words: str, fresh: Path) -> None:
    found: Run = run_ireu(*arguments, cwd=fresh)
    assert (found.code, words in found.err) == (code, True), found.err


def test_a_slow_drip_is_not_waited_for() -> None:
    """Each byte comes in time, and the whole does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with listener.accept()[0] as caller, contextlib.suppress(OSError):
                caller.recv(1 << 16)
                caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(1000):
                    caller.sendall(b" ")
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        service = Service(f"http://127.0.0.1:{listener.getsockname()[1]}", patience=0.3)
        with pytest.raises(ServiceError, match="takes too long"):
            service.get("x")
        thread.join()


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("HTTP://Localhost:80/", "http://localhost"),
        ("https://a.example:443/b/", "https://a.example/b"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_url_is_written_in_one_way(url: str, same: str) -> None:
    assert checked_url(url) == same
