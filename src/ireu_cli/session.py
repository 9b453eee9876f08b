"""What the steps share: the resolved configuration, the run folder, the parent's manifest, and a way to talk."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, Protocol

import torch

from ireu_cli import __version__
from ireu_cli.cases.events import event_of
from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.faces.align import cropped_landmarks
from ireu_cli.manifest import (
    NOBODY,
    EncoderRecord,
    Manifest,
    Roster,
    Step,
    difference,
    digest_of,
    digest_of_fields,
)
from ireu_cli.params import ARCFACE_LANDMARKS, Config, DataParams, Source
from ireu_cli.sections import PATHS, RECORDED, VERIFIERS_PATHS
from ireu_cli.sharding.executor import Alone, Executor
from ireu_cli.store import outputs
from ireu_cli.store.manifests import write_manifest
from ireu_cli.store.rundir import RunDir
from ireu_cli.support.photo_table import PhotoTable, keys_of
from ireu_cli.support.runtime import environment, generator
from ireu_cli.values import Json, Photo


class Talk(Protocol):
    """The interface through which a step talks to the user; the CLI writes to stderr.

    With `verbose`, photos may be named by their paths, which logs must not contain otherwise.
    """

    verbose: bool

    def note(self, text: str) -> None:
        """Print a message."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
        """Show a progress bar; the yielded function advances it and sets the words beside it."""


@dataclass
class Session:
    """The run of one command."""

    step: Step
    config: Config
    run: RunDir
    talk: Talk
    force: bool
    parent: Manifest | None = None
    seen: outputs.State = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    executor: Executor = field(default_factory=Alone)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long a part takes, in seconds."""
        start = monotonic()
        yield
        self.timings[name] = round(self.timings.get(name, 0.0) + monotonic() - start, 3)

    def random(self, *names: str | int) -> torch.Generator:
        """Random numbers for one use, by its names: they depend on nothing else but the seed of the run."""
        return generator(self.config.seed, *names)

    def encoder(self, *, dtype: str | None = None) -> ImageEncoder:
        """Load the encoder, and refuse it if it is not the parent's.

        Raises:
            ModelError: it cannot be loaded, or its fingerprint differs from the parent's; both are named.
        """
        params = self.config.encoder if dtype is None else self.config.encoder.model_copy(update={"dtype": dtype})
        with self.timed("load_encoder"):
            encoder = load_encoder(params, landmarks_in(self.config.data), self.config.run.device)
        if encoder.stays_on_cpu(self.config.run.device):
            self.talk.note(f"onnxruntime has no provider for {self.config.run.device}: the network runs on the CPU")
        return self.check_encoder(encoder)

    def original(self, *, dtype: str | None = None) -> ImageEncoder:
        """Load the encoder to edit it.

        Raises:
            ModelError: it cannot be loaded, is not the parent's, or ireu has edited it already.
            ArtifactError: the record beside it is damaged.
        """
        encoder = self.encoder(dtype=dtype)
        self.run.refuse_edited(self.config.encoder.source, encoder.fingerprint)
        return encoder

    def refuse_other(self, fingerprint: str) -> None:
        """Refuse an encoder that is not the parent's.

        Raises:
            ModelError: its fingerprint differs; both are named.
        """
        if self.parent and fingerprint != self.parent.encoder.fingerprint:
            raise ModelError(
                f"The encoder has fingerprint {fingerprint}, "
                f"but {self.parent.step} used {self.parent.encoder.fingerprint}",
                "Name the encoder that was used with --encoder, or run the steps again for this one",
            )

    def check_encoder(self, encoder: ImageEncoder) -> ImageEncoder:
        """Give an encoder back that is the parent's.

        Raises:
            ModelError: it is another one, or computes otherwise.
            ArtifactError: the parent used another tap.
        """
        self.refuse_other(encoder.fingerprint)
        if self.parent and not self.parent.encoder.fits(encoder.settings):
            raise ModelError(
                f"The encoder has the weights that {self.parent.step} used, but its config.json states another "
                "activation, number of heads or epsilon",
                "Put the earlier config.json back beside the weights, or run the steps again",
            )
        if self.parent and self.config.encoder.tap != self.parent.encoder.tap:
            raise ArtifactError(
                f"The tap is {self.config.encoder.tap}, but {self.parent.step} used {self.parent.encoder.tap}",
                "Leave --tap out, or run the steps again for this tap",
            )
        return encoder

    def name_of(self, photo: Photo) -> str:
        """The name of a photo in messages: numbers, and its path if the user asks for it."""
        return f"{photo.label} ({photo.path})" if self.talk.verbose else photo.label

    def records(self, photos: PhotoTable) -> Roster:
        """People as they appear in manifests: numbers and keyed digests."""
        keyed = photos.keyed
        digests = keyed.tobytes() if keyed.size else b"".join(map(self.run.keyed_bytes, keys_of(photos.digests)))
        return Roster.of_digests((photos.numbers + 1).tolist(), digests, photos.sizes.cumsum().tolist())

    def draft(
        self,
        encoder: ImageEncoder,
        *,
        targets: Roster = NOBODY,
        retain: Roster = NOBODY,
        extra: Json = None,
    ) -> Manifest:
        """Start the step's manifest; its `identity` covers everything that decides the result."""
        parameters, run = self._parameters(), self.config.run
        record = EncoderRecord(
            fingerprint=encoder.fingerprint,
            architecture=encoder.architecture,
            tap=self.config.encoder.tap,
            layers=encoder.blocks,
            settings=encoder.settings,
        )
        parent = self.parent.digest if self.parent else None
        identity = digest_of_fields(
            {
                "step": self.step,
                "parameters": parameters,
                # Leave out entries that earlier versions did not record, so that the same work has one identity.
                "encoder": record.model_dump(exclude={"settings"}),
                "preprocessing": encoder.preprocessing,
                "targets": targets,
                "retain": retain,
                "parent": parent,
                "extra": extra,
            }
        )
        return Manifest(
            step=self.step,
            state="running",
            tool_version=__version__,
            identity=identity,
            seed=self.config.seed,
            parameters=parameters,
            encoder=record,
            parent=parent,
            key=self.run.key_name,
            targets=targets,
            retain=retain,
            environment=environment(run.device, run.batch_size, run.pictures_together),
        )

    def already_done(self, manifest: Manifest, record: Path, output: Path) -> Manifest | None:
        """Look at the output: it holds the finished result of the same step, nothing, or something else.

        Args:
            manifest: the draft.
            record: the path of the finished manifest.
            output: the file or folder that the step writes.

        Raises:
            ArtifactError: it holds something else, and `--force` is not given.
        """
        # A worker leaves this to the process that it helps.
        if self.executor.is_worker:
            return None
        outputs.recover(record, output)
        existing = outputs.found_at(record, output)
        self.seen = outputs.state_of(record, output)
        is_running = self.run.is_running(manifest.identity, output)
        is_same = (
            existing is not None
            and existing.identity == manifest.identity
            and existing.encoder.fits(manifest.encoder.settings)
        )
        if existing is not None and is_same and self.run.vouches(existing) and (is_running or not self.force):
            return self.close(existing)
        if existing is not None and not is_running and not self.force:
            if is_same:
                raise ArtifactError(
                    f"{output} is not sealed with the key of the run folder {self.run.path}: it was made elsewhere, "
                    "or was changed and sealed again",
                    "Make it again with --force, or choose another --out",
                )
            raise ArtifactError(
                f"{output} was made with {difference(existing, manifest, self.config.record.case_id)}",
                "Choose another --out, or overwrite it with --force",
            )
        outputs.refuse_full_mount(output)
        return None

    @contextmanager
    def lock(self, output: Path) -> Iterator[None]:
        """Hold the right to write the output; a worker writes none.

        Raises:
            ArtifactError: another process holds it.
        """
        if self.executor.is_worker:
            yield
            return
        with self.run.lock(output):
            yield

    def start(self, manifest: Manifest, output: Path) -> None:
        """Record that the step is running towards its output; a worker only helps."""
        if not self.executor.is_worker:
            self.run.start(manifest, output)

    def put_file(self, output: Path, data: bytes | bytearray, manifest: Manifest) -> Manifest:
        """Write a file and its manifest after `already_done` found nothing that must stay; this ends the step.

        Raises:
            WorkerDoneError: this process only helps another one.
        """
        self.executor.leave()
        return self.close(outputs.write_artifact(output, data, manifest, self.seen, self.run.seal))

    def put_folder(self, output: Path, fill: Callable[[Path], Manifest], *, shared: bool) -> Manifest:
        """Write a folder after `already_done` found nothing that must stay; this ends the step.

        Args:
            output: the folder.
            fill: writes the content into the folder that it gets, and returns the manifest in it.
            shared: other users may read it, as far as the umask allows.

        Raises:
            WorkerDoneError: this process only helps another one.
        """
        self.executor.leave()
        return self.close(
            outputs.write_artifact_folder(outputs.record_of(self.step, output), output, fill, self.seen, shared)
        )

    def seal(
        self,
        path: Path,
        manifest: Manifest,
        files: Sequence[Path],
        known: Mapping[Path, str] = MappingProxyType({}),
    ) -> Manifest:
        """Write a finished step's manifest, sealed with the run folder's key; see `write_manifest`."""
        return write_manifest(path, manifest, list(files), known, self.run.seal)

    def close(self, manifest: Manifest) -> Manifest:
        """Record the paths of the inputs and what was done for which case, and delete what the running step kept."""
        self.run.remember(manifest.digest, self.locations())
        if (event := event_of(manifest, self.parent, self.config.record)) is not None:
            self.run.register(self.config.run.register_file).add(event)
        self.run.finish(manifest.identity)
        self.executor.end()
        return manifest

    def work_name(self, output: Path | None) -> str:
        """A digest (hex) that all processes have in common that share this step's work."""
        run = self.config.run
        how = [run.device, run.batch_size, run.pictures_together, run.shard_batches]
        parent = self.parent.digest if self.parent else None
        # A name may be any bytes.
        place = os.fsencode(output.absolute()).hex() if output else None
        return digest_of([self.step, self._parameters(), parent, how, place])

    def locations(self) -> dict[str, str]:
        """The paths of this run's inputs, for the steps that follow."""
        return {
            f"{section}.{key}": str(Path(value).absolute()) if Path(value).exists() else str(value)
            for section, key in PATHS
            if (value := getattr(getattr(self.config, section), key)) is not None
            and (section, key) not in VERIFIERS_PATHS
        }

    def _parameters(self) -> dict[str, Any]:
        plain = self.config.model_dump(mode="json", include={"seed", *RECORDED[self.step]})
        for section, key in PATHS:
            if section in plain:
                plain[section].pop(key)
        for recogniser in plain.get("judges", {}).get("recognisers", ()):
            recogniser.pop("model")
        return plain


def landmarks_in(data: DataParams) -> tuple[float, ...]:
    """The positions of eyes, nose and mouth corners in the encoder's pictures, as ten fractions."""
    return cropped_landmarks(data.crop_margin) if data.faces == "detect" else data.landmarks or ARCFACE_LANDMARKS
