"""Draws of targets among the people of `eval`, a folder of artifacts each, made by the four commands as users run them.

A second run goes on where the first stopped. Needs IREU_DATA, a folder with `faces/eval` and `faces/train`.
"""

import argparse
import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.encoders.face_encoder import FACE_TAPS

LANDMARKS = "0.375,0.431,0.6375,0.425,0.5125,0.594,0.394,0.719,0.625,0.7125"
"""Where eyes, nose and mouth corners lie in the photos of IREU_DATA, as fractions of the picture."""
PHOTOS = "5"
STRONGER = {"unlearn.method": "ireu", "unlearn.learning_rate": "1e-4"}
TOWARD = STRONGER | {"unlearn.direction": "toward"}
GATED = {"unlearn.method": "gated", "locate.method": "all", "gated.people": "5"}
METHODS: dict[str, dict[str, str]] = {
    # As published.
    "global": {"unlearn.method": "global"},
    "ireu": {"unlearn.method": "ireu"},
    # The published rate hardly moves an encoder of this size, so the open points are compared at ten times as much.
    "global-toward": TOWARD | {"unlearn.method": "global"},
    "ireu-toward": TOWARD,
    "ireu-away": STRONGER,
    "global-away": STRONGER | {"unlearn.method": "global"},
    # All features may change; each of five people, wherever that many are planned, may cost a hundredth of the others.
    "gated": GATED,
    "gated-masked": {"unlearn.method": "gated", "gated.people": "5", "gated.confine": "true"},
    "gated-gain-1": GATED | {"gated.erase_gain": "1", "gated.gain": "1"},
    "gated-1e-3": GATED | {"gated.max_false_alarm": "0.001"},
    # As in an encoder that has no class token.
    "gated-pooled": GATED | {"gated.found_in": "all_tokens"},
    "gated-plain": GATED | {"gated.copies": ""},
    "block": {"unlearn.method": "block", "locate.method": "all"},
    "rate-1e-5": TOWARD | {"unlearn.learning_rate": "1e-5"},
    "rate-3e-4": TOWARD | {"unlearn.learning_rate": "3e-4"},
    "mask-person": TOWARD | {"unlearn.mask_scope": "person"},
    "mask-photo": TOWARD | {"unlearn.mask_scope": "photo"},
    "one-partner": TOWARD | {"unlearn.average_partners": "false"},
    "k-0.1": TOWARD | {"locate.top_fraction": "0.1"},
    "k-0.2": TOWARD | {"locate.top_fraction": "0.2"},
    "k-0.7": TOWARD | {"locate.top_fraction": "0.7"},
    "k-1": TOWARD | {"locate.top_fraction": "1.0"},
    "layers-0-2": TOWARD | {"unlearn.layers": "blocks:0-2"},
    "layers-3-4": TOWARD | {"unlearn.layers": "blocks:3-4"},
    "layers-4": TOWARD | {"unlearn.layers": "block:4"},
    "null-0.5": TOWARD | {"unlearn.null_share": "0.5"},
    "locator-variance": TOWARD | {"locate.method": "variance"},
    "locator-saliency": TOWARD | {"locate.method": "saliency"},
    "locator-random": TOWARD | {"locate.method": "random"},
}
"""Name -> settings; those of `locate` make a mask of their own."""
USUAL = ("global", "ireu", "global-toward", "ireu-toward")


@dataclass(frozen=True)
class Draws:
    """What all draws of a table share: data, working folder, encoder and tap, how long to unlearn, people to retain."""

    data: Path
    work: Path
    encoder: str
    tap: str
    steps: str
    retained: int
    kind: str = "report"

    @property
    def run(self) -> list[str]:
        """Flags of every command."""
        return ["--run-dir", str(self.work / ".ireu"), "--quiet"]

    def folder(self, count: int, draw: int) -> Path:
        """Where the artifacts of a draw of `count` targets lie."""
        return self.work / f"{count}-people" / f"draw-{draw:02d}"

    def delta(self, count: int, draw: int, method: str) -> Path:
        """Where a method's delta lies."""
        return self.folder(count, draw) / f"{method}-{self.steps}.safetensors"

    def report(self, count: int, draw: int, method: str) -> Path:
        """Where a method's report lies."""
        return self.folder(count, draw) / f"{self.kind}-{method}-{self.steps}"

    def link_retained(self) -> None:
        """Lay out the people for locating and unlearning: the first of `train` with three photos or more."""
        people = sorted(path for path in (self.data / "faces" / "train").iterdir() if path.is_dir())
        names = [path.name for path in people if len(list(path.iterdir())) >= 3][: self.retained]
        _link_people(self.work / "retain", self.data / "faces" / "train", names)

    def link_people(self, count: int, draw: int) -> None:
        """Draw targets; everybody else of `eval` is retained."""
        everybody = sorted(path.name for path in (self.data / "faces" / "eval").iterdir())
        targets = random.Random(draw).sample(everybody, count)
        others = [name for name in everybody if name not in targets]
        for name, people in (("targets", targets), ("others", others)):
            _link_people(self.folder(count, draw) / name, self.data / "faces" / "eval", people)

    def unlearn(self, count: int, draw: int, method: str, verify: Sequence[str] = ()) -> None:
        """Locate, unlearn and verify one draw with one method.

        Args:
            count: number of targets.
            draw: number of the draw.
            method: a key of `METHODS`.
            verify: further arguments of `verify`.
        """
        self.link_people(count, draw)
        folder = self.folder(count, draw)
        located = {key: value for key, value in METHODS[method].items() if key.startswith("locate.")}
        mask = folder / ("-".join(["mask", *located.values()]) + ".pt")
        delta = self.delta(count, draw, method)
        people = ["--targets", str(folder / "targets"), "--retain", str(self.work / "retain")]
        encoder = ["--encoder", self.encoder, "--tap", self.tap, "--max-photos", PHOTOS, "--seed", str(draw)]
        settings = {"data.landmarks": LANDMARKS, "data.retain_holdout": "0", "locate.interchange_pairs": "0"}
        ireu("locate", *self.run, *people, *encoder, *_sets(settings | located), "-o", str(mask))
        changed = {key: value for key, value in METHODS[method].items() if key not in located}
        ireu("unlearn", *self.run, "--mask", str(mask), *_sets(changed), "--steps", self.steps, "-o", str(delta))
        # The embedded face encoder is one of the two judges, unless it is what was edited.
        judges = ["--set", "judges.min_recognisers=1"] if self.tap in FACE_TAPS else []
        others = ["--retain", str(folder / "others"), "-o", str(self.report(count, draw, method))]
        ireu("verify", *self.run, "--delta", str(delta), *others, *judges, *verify, ok=(0, 4, 5))


def options(description: str | None) -> argparse.Namespace:
    """The flags that both tables take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", default="portrait-mini", help="for pictures, a bundle with generators")
    parser.add_argument("--tap", default="penultimate", help="the later ones do not reach generators that read earlier")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(USUAL))
    parser.add_argument("--steps", default="auto")
    parser.add_argument("--retained", type=int, default=1000, help="people of train, at most; 838 have three photos")
    parser.add_argument("--shard", default="0/1", help="this process's part of the draws, such as 0/2")
    return parser.parse_args()


def run(
    chosen: argparse.Namespace, data: Path, verify: Callable[[int], Sequence[str]], kind: str = "report"
) -> Draws | None:
    """Unlearn and verify what is missing of this shard's draws; only the first shard goes on to the table.

    Args:
        chosen: of `options`.
        data: IREU_DATA.
        verify: from the number of targets to further arguments of `verify`.
        kind: what the folders of the reports begin with.
    """
    draws = Draws(data, chosen.work, chosen.encoder, chosen.tap, chosen.steps, chosen.retained, kind)
    shard, shards = (int(part) for part in chosen.shard.split("/"))
    draws.link_retained()
    for index, (count, draw) in enumerate((count, draw) for count in chosen.people for draw in range(chosen.draws)):
        if index % shards == shard:
            for method in chosen.methods:
                draws.unlearn(count, draw, method, verify(count))
    return None if shard else draws


def _sets(settings: Mapping[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def ireu(*arguments: str, ok: tuple[int, ...] = (0,)) -> None:
    """Run a command; end the benchmark with its message when it ends otherwise than expected."""
    done = subprocess.run([sys.executable, "-m", "ireu_cli", *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        raise SystemExit(f"ireu {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")


def link_photos(folder: Path, photos: Sequence[Path]) -> None:
    """Lay some photos of a person out as a folder of that person."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        with contextlib.suppress(FileExistsError):
            (folder / photo.name).symlink_to(photo)


def _link_people(folder: Path, source: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(source / name)
