"""Gates in other runtimes and in half precision: who is found there, and how much everybody else changes.

    python benchmarks/runtimes.py [--people 5] [--photos 5] [--rate 1e-3] [--shown 10] [--every 4]

The face encoder of portrait-mini gets gates for some people of `eval`, made from a few photos each; whitening and
thresholds come from `train`. The original and the edited network then go through each runtime in the same way, with
photos of everybody in `eval`. OpenVINO and onnxconverter-common are tried where they are installed. Needs IREU_DATA.

Found: photos above a threshold in double precision, and how many of them the runtime moves as far as it should (within
a twentieth of the embedding's length). The same bits: of all other photos. Largest change: of an embedding of these,
by its own length. Gate alone: photos about which `gate.onnx`, in the same runtime, answers otherwise than in double
precision; behind it, how far the worst of them lies from its threshold, in steps from no change to the whole change.
"""

import argparse
import importlib.util
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor
from torch.nn.functional import normalize

from detector_table import Strangers
from ireu_cli.encoders.face_encoder import FaceEncoder, load_face_encoder
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.gate.network import gate_bytes
from ireu_cli.encoders.onnx_gates import Gates, append_gates, through_gates
from ireu_cli.params import GatedParams
from ireu_cli.unlearning.gated.solve_network import change_of_embedding
from portrait_table import read
from target_draws import LANDMARKS

Rows = npt.NDArray[Any]
Run = Callable[[Any, Rows], Rows]
"""Runs a network on its input and returns its only output."""
LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
BATCHES = (1, 32)
AS_FAR = 0.05


@dataclass(frozen=True)
class Case:
    """What goes through every runtime: networks, the gate alone, and pixels and embeddings of the photos."""

    original: Any
    edited: Any
    gate: Any
    gates: Gates
    pixels: Rows
    embeddings: Rows


def main() -> None:
    """Make gates, then a row a runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--shown", type=int, default=10, help="photos of each person of eval that go through")
    parser.add_argument("--every", type=int, default=4, help="take every n-th person of train")
    case = make_case(parser.parse_args())
    length = np.linalg.norm(case.embeddings, axis=1)
    print(f"{len(case.pixels)} photos; embeddings are {length.min():.2f} to {length.max():.2f} long\n")
    print("| runtime | batch | found | the same bits | largest change | gate alone |")
    print("|---|---|---|---|---|---|")
    for name, batch, prepare, run in runtimes():
        print(f"| {name} | {batch} | {row(case, prepare, run)} |", flush=True)
    print(f"| onnx's reference, every result in half | all | {in_half(case)} |")
    wrong, count, far = flips_in_half(case)
    print(
        f"\n{wrong} of {count} blends within half a step of a threshold change sides in half, at most {far:.2g} from it"
    )


def make_case(chosen: argparse.Namespace) -> Case:
    """Embed `train` and `eval`, find people, and put gates behind the network."""
    faces = Path(os.environ["IREU_DATA"]) / "faces"
    marks = tuple(float(part) for part in LANDMARKS.split(","))
    encoder = load_face_encoder(embedded_folder() / "face_encoder.onnx", marks, "cpu")
    train = [sorted(person.iterdir()) for person in sorted((faces / "train").iterdir())[:: chosen.every]]
    _, known = embed(encoder, [path for person in train for path in person])
    who = torch.tensor([number for number, person in enumerate(train) for _ in person])
    rng, given, shown = random.Random(0), [], []
    for number, person in enumerate(sorted((faces / "eval").iterdir())):
        photos = sorted(person.iterdir())
        rng.shuffle(photos)
        if number < chosen.people:
            given.append(photos[: chosen.photos])
        shown += photos[: chosen.shown]
    strangers = Strangers(normalize(known), who)
    wanted = [normalize(embed(encoder, photos)[1]) for photos in given]
    gates = gates_of(strangers, wanted, chosen.rate)
    pixels, embeddings = embed(encoder, shown)
    original = in_single(onnx.load(embedded_folder() / "face_encoder.onnx"))
    gate = onnx.load_from_string(gate_bytes(gates, encoder.fingerprint, chosen.rate * chosen.people))
    return Case(original, append_gates(original, gates), gate, gates, pixels.numpy(), embeddings.numpy())


def embed(encoder: FaceEncoder, photos: list[Path]) -> tuple[Tensor, Tensor]:
    """Pixels and embeddings of photos."""
    pixels = encoder.pixels([read(path) for path in photos])
    return pixels, encoder.embed(pixels, "embedding")


def gates_of(strangers: Strangers, wanted: list[Tensor], rate: float) -> Gates:
    """The gates of some people, from their embeddings at length one."""
    found, average = strangers.find(wanted, [rate])[0], strangers.people.every.mean()
    changes = [change_of_embedding(one, average, torch.ones_like(average), GatedParams().gain) for one in wanted]
    thresholds = torch.tensor([one.threshold.value for one in found], dtype=torch.float64)
    return Gates(torch.stack([one.weight for one in found]), thresholds, torch.stack(changes), GatedParams().rise)


def in_single(network: Any) -> Any:
    """The network with its weights in single precision: portrait-mini keeps them in half, behind casts."""
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    casts = {node.output[0]: node.input[0] for node in network.graph.node if node.op_type == "Cast"}
    del network.graph.initializer[:]
    for name, values in kept.items():
        network.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    nodes = [node for node in network.graph.node if node.op_type != "Cast"]
    for node in nodes:
        node.input[:] = [casts.get(name, name) for name in node.input]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    onnx.checker.check_model(network)
    return network


def runtimes() -> Iterator[tuple[str, int, Callable[[Any], Any], Run]]:
    """Every runtime that is installed: its name, the batch, how a network is made ready, and how it runs."""
    for level in LEVELS:
        for batch in BATCHES:
            yield f"onnxruntime, {level.lower()}", batch, _session(level), _batches(_by_session, batch)
    if importlib.util.find_spec("onnxconverter_common"):
        for batch in BATCHES:
            yield "onnxruntime, converted to half", batch, _halved, _batches(_by_session, batch)
    if importlib.util.find_spec("openvino"):
        import openvino

        capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        kinds = ["f32", *(kind for kind, name in (("bf16", "BF16"), ("f16", "FP16")) if name in capable)]
        for batch in BATCHES:
            for kind in kinds:
                yield f"OpenVINO, {kind}", batch, _compiled(kind, False), _batches(_by_openvino, batch)
            yield "OpenVINO, f32, weights in half", batch, _compiled("f32", True), _batches(_by_openvino, batch)


def _session(level: str) -> Callable[[Any], Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.intra_op_num_threads = 1
    return lambda network: onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _halved(network: Any) -> Any:
    from onnxconverter_common.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    return _session("ENABLE_ALL")(convert_float_to_float16(copy, keep_io_types=True))


def _by_session(session: Any, rows: Rows) -> Rows:
    found: Rows = session.run(None, {session.get_inputs()[0].name: rows})[0]
    return found


def _compiled(kind: str, weights_in_half: bool) -> Callable[[Any], Any]:
    import openvino

    core = openvino.Core()

    def prepare(network: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            source, own = Path(folder) / "network.onnx", Path(folder) / "network.xml"
            onnx.save(network, source)
            # Into OpenVINO's own format and back, as its users do.
            openvino.save_model(openvino.convert_model(source), own, compress_to_fp16=weights_in_half)
            settings = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": 1}
            return core.compile_model(core.read_model(own), "CPU", settings)

    return prepare


def _by_openvino(model: Any, rows: Rows) -> Rows:
    found: Rows = model(rows)[model.output(0)]
    return found.copy()


def _batches(run: Run, batch: int) -> Run:
    return lambda network, rows: np.concatenate([run(network, part) for part in _parts(rows, batch)])


def _parts(rows: Rows, batch: int) -> list[Rows]:
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def row(case: Case, prepare: Callable[[Any], Any], run: Run) -> str:
    """What a runtime does, as cells."""
    before, after = (run(prepare(network), case.pixels).astype(np.float64) for network in (case.original, case.edited))
    says = run(prepare(case.gate), case.embeddings)
    return told(case, before, after, says)


def told(case: Case, before: Rows, after: Rows, says: Rows) -> str:
    """Compare with double precision: embeddings before and after (n, d), and the answers of the gate (n,)."""
    above = steps_above(case)
    wanted, _ = through_gates(
        torch.from_numpy(case.embeddings).double(), case.gates.weights.double(), case.gates.thresholds.double(),
        case.gates.changes.double(), case.gates.rise,
    )  # fmt: skip
    length = np.linalg.norm(case.embeddings, axis=1)
    moved = np.linalg.norm(after - before, axis=1) / length
    should = np.linalg.norm(wanted.numpy() - case.embeddings, axis=1) / length
    found, others = above > 0, above <= 0
    as_far = (np.abs(moved - should) < AS_FAR) & found
    same = (before == after).all(1) & others
    wrong = says.astype(bool) != found
    far = f", at most {np.abs(above[wrong]).max():.2g} from it" if wrong.any() else ""
    return (
        f"{as_far.sum()} of {found.sum()} | {same.sum()} of {others.sum()} | {moved[others].max():.2g} | "
        f"{wrong.sum()} of {len(wrong)}{far}"
    )


def steps_above(case: Case, embeddings: Rows | None = None) -> Rows:
    """How far each embedding's highest score lies above its threshold, in steps: double precision (n,)."""
    rows = case.embeddings if embeddings is None else embeddings
    unit = normalize(torch.from_numpy(rows).double(), dim=1)
    scores = (unit @ case.gates.weights.double().T - case.gates.thresholds.double()) / case.gates.rise
    found: Rows = scores.max(dim=1).values.numpy()
    return found


def in_half(case: Case) -> str:
    """The gates behind embeddings that are half numbers, computed as onnx defines it, each result rounded to half."""
    width = case.embeddings.shape[1]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, ["n", width]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "passes", ends[:1], ends[1:])
    passes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    given = case.embeddings.astype(np.float16)
    (after,) = ReferenceEvaluator(append_gates(passes, case.gates)).run(None, {"in": given})
    gate = _gate_in_half(case.gate)
    (says,) = ReferenceEvaluator(gate).run(None, {"embedding": given})
    return told(case, given.astype(np.float64), after.astype(np.float64), says)


def flips_in_half(case: Case) -> tuple[int, int, float]:
    """Move the photos' embeddings towards a person until they lie next to a threshold, and ask the gate in half.

    Returns:
        How many fall on another side than in double precision, of how many, and how far from the threshold at most.
    """
    unit = case.embeddings.astype(np.float64) / np.linalg.norm(case.embeddings, axis=1, keepdims=True)
    rng, people = np.random.default_rng(0), case.gates.weights.double().numpy()
    toward = people[rng.integers(len(people), size=len(unit))]
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    wanted, low, high = rng.uniform(-0.5, 0.5, len(unit)), np.zeros(len(unit)), np.full(len(unit), 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_far = steps_above(case, unit + middle[:, None] * toward) > wanted
        low, high = np.where(too_far, low, middle), np.where(too_far, middle, high)
    given = (unit + low[:, None] * toward).astype(np.float16)
    above = steps_above(case, given.astype(np.float64))
    (says,) = ReferenceEvaluator(_gate_in_half(case.gate)).run(None, {"embedding": given})
    near = np.abs(above) < 0.5
    wrong = (says != (above > 0)) & near
    return int(wrong.sum()), int(near.sum()), float(np.abs(above[wrong]).max(initial=0))


def _gate_in_half(network: Any) -> Any:
    """The gate with all of its numbers in half."""
    half = onnx.ModelProto()
    half.CopyFrom(network)
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    half.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return half


if __name__ == "__main__":
    main()
