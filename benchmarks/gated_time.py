"""What one more person costs, in ratios against baselines of the same run.

    python benchmarks/gated_time.py [--retained 400] [--rounds 5]

A request with five photos, statistics prepared, against encoding the same five photos; a request with changed copies
against encoding those; gathering the statistics against encoding the same retained photos; and one step of `ireu`, of
which the paper takes 1,000, against a whole request. Needs IREU_DATA.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from detector_table import rows_by_fold
from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.mlp_site import MlpSite, watching
from ireu_cli.params import EncoderParams, GatedParams, UnlearnParams
from ireu_cli.unlearning.gated.site_sums import SiteSums, summarise
from ireu_cli.unlearning.gated.solve import Wanted, change_of, compose, enter, find, open_ledger, rate_of, readout_of
from ireu_cli.unlearning.ireu.published import ForgetSet, RetainSet, unlearn
from portrait_table import read

STEPS = 20
"""Steps of `ireu` that are timed."""


def main() -> None:
    """Time in turns, print medians of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retained", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    faces, encoder = Path(os.environ["IREU_DATA"]) / "faces", load_encoder(EncoderParams(), "cpu")
    site, model, params = MlpSite(encoder.blocks - 1), encoder.model, GatedParams()
    mine = [read(file) for file in sorted(sorted((faces / "eval").iterdir())[0].iterdir())[:5]]
    rest = [read(file) for file in sorted((faces / "train").glob("*/*.jpg"))[: chosen.retained]]
    readout = readout_of(encoder, "image_embeds")

    def see(images: list, sums: SiteSums | None) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[type-arg]
        inputs, states = [], []
        for start in range(0, len(images), 16):
            with watching(model, site) as seen, torch.inference_mode():
                output = model.vision_model(encoder.pixels(images[start : start + 16]))
            inputs.append(seen[0][:, 0])
            states.append(output.last_hidden_state[:, 0])
            if sums is not None:
                sums.add(model, site, seen[0])
        return torch.cat(inputs), torch.cat(states)

    def encode(images: list) -> None:  # type: ignore[type-arg]
        for start in range(0, len(images), 16):
            encoder.encode(encoder.pixels(images[start : start + 16]), "image_embeds")

    sums = SiteSums()
    inputs, states = see(rest, sums)
    nulls, _ = see([torch.zeros(160, 160, 3, dtype=torch.uint8).numpy()] * 2, None)
    people = zip(torch.split(inputs, 4), torch.split(states, 4), strict=True)
    statistics = summarise(sums, people, [], nulls, readout, [len(part) for part in torch.split(inputs, 4)])
    set_on = rows_by_fold(inputs, torch.arange(len(inputs)) // 4)
    weights = site.weights(model)
    empty = open_ledger(statistics, site, weights, params.people)

    def request(images: list) -> None:  # type: ignore[type-arg]
        found_inputs, found_states = see(images, None)
        wanted = Wanted(found_inputs, found_states[:5], readout.read(found_states[:5]))
        found = find([wanted], statistics, set_on, params.shrinkage, rate_of(params, params.people))
        mask = torch.ones(len(statistics.average), dtype=torch.bool)
        change = change_of(wanted, readout, statistics.average, mask, params.gain)
        compose(enter(empty, ["one"], found, [change], params), weights)

    pixels = encoder.pixels(mine)
    features = encoder.encode(pixels, "image_embeds")
    forget = ForgetSet(pixels, features, torch.randn_like(features), (0,) * 5)
    null = encoder.null_pixels()
    retain = RetainSet(5, lambda i: (pixels[list(i)], features[list(i)]), null, encoder.encode(null, "image_embeds"))

    def paper() -> None:
        names = list(dict(model.named_parameters()))
        unlearn(
            encoder, "image_embeds", names, forget, retain, torch.ones(features.shape[1], dtype=torch.bool),
            UnlearnParams(steps=STEPS, learning_rate=1e-9), 0,
        )  # fmt: skip

    copies = mine * (1 + len(params.copies))
    parts: dict[str, Callable[[], None]] = {
        "encode 5": lambda: encode(mine),
        "request": lambda: request(mine),
        f"encode {len(copies)}": lambda: encode(copies),
        "request with copies": lambda: request(copies),
        "encode retained": lambda: encode(rest),
        "statistics": lambda: (see(rest, SiteSums()), None)[1],
        "ireu": paper,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(chosen.rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - start)
    median = {name: sorted(values[1:])[len(values[1:]) // 2] for name, values in times.items()}
    for name, value in median.items():
        print(f"{name}: {1000 * value:.1f} ms")
    print(f"\none more person over encoding the photos: {median['request'] / median['encode 5']:.2f}")
    both = median["request with copies"] / median[f"encode {len(copies)}"]
    print(f"the same with copies, over encoding photos and copies: {both:.2f}")
    print(f"statistics over encoding: {median['statistics'] / median['encode retained']:.2f}")
    steps = 1000 * median["ireu"] / STEPS
    print(f"ireu, 1,000 steps, over a request: {steps / median['request']:.0f}")
    print(f"ireu, 1,000 steps, over a request with copies: {steps / median['request with copies']:.0f}")


if __name__ == "__main__":
    main()
