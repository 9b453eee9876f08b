"""Whether a gate is wanted, and whether one can be made."""

from ireu_cli.encoders.family import TakesGates
from ireu_cli.encoders.onnx_gates import GATE_TENSORS
from ireu_cli.errors import ArtifactError, ConfigError
from ireu_cli.exporting.opened import Original
from ireu_cli.layouts.table import AUTO, layout_named
from ireu_cli.manifest import Manifest
from ireu_cli.params import ExportParams
from ireu_cli.values import WeightDelta

RATE = "false_alarm_rate_each"
"""The entry of a delta's record for the rate of false alarms that each detector was granted."""


def is_gate_wanted(params: ExportParams) -> bool:
    """Whether a gate is to be exported, and no encoder."""
    return params.format != AUTO and layout_named(params.format).is_gate


def refuse_without_detectors(original: Original, parent: Manifest, delta: WeightDelta) -> None:
    """Refuse a delta from which no gate can be made.

    Raises:
        ConfigError: its encoder is no face-embedding network.
        ArtifactError: it has no detectors behind the encoder, or its record does not say at which rate they were set.
    """
    if not isinstance(original.encoder, TakesGates):
        raise ConfigError(
            f"A gate looks at embeddings of an ArcFace network, and this encoder is a {original.family.title}",
            "Export the edited encoder without --format gate, or unlearn with an ArcFace network",
        )
    if set(delta.tensors) != set(GATE_TENSORS):
        raise ArtifactError(
            "A gate is made of detectors, and this delta has none",
            "Make a delta with --method gated, or leave out the format",
        )
    if not isinstance(parent.metrics.get(RATE), int | float):
        raise ArtifactError(
            "The record of this delta does not say which rate of false alarms its detectors were granted",
            "Unlearn again with this version of ireu",
        )
