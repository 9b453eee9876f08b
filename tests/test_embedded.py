"""The bundle that comes with the package: whole, small, and about faces."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from insightface import model_zoo
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.files.portrait import EMBEDDED, embedded_folder, find_bundle
from ireu_cli.faces.align import crop_face, template_points
from ireu_cli.generators.generator import load_generators
from ireu_cli.judges.face_check import FoundFace, load_face_check
from ireu_cli.judges.recogniser import ALIGNED, load_recogniser
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import RgbImage
from tests.conftest import run_ireu

LIMIT = 60_000_000
KINDS = {".json", ".jsonl", ".jpg", ".md", ".onnx", ".safetensors", ".txt"}


def test_it_is_small_and_holds_nothing_that_has_to_be_unpickled() -> None:
    files = [path for path in embedded_folder().rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= KINDS
    assert sum(path.stat().st_size for path in files) < LIMIT
    assert not [path for path in files if path.suffix == ".json" and '"_name_or_path": "/' in path.read_text()]


def test_the_default_encoder_needs_no_configuration(samples: Path, tmp_path: Path) -> None:
    few = ("--set", "locate.partners=1", "--set", "locate.interchange_pairs=0", "--max-photos", "2")
    found = run_ireu("locate", "--targets", samples / "faces", "--retain", samples / "others", *few, cwd=tmp_path)
    assert found.code == 0, found.err
    assert (tmp_path / "mask.pt").exists()


def aligned(images: list[RgbImage], looks: list[FoundFace]) -> Tensor:
    """Pictures and what the face check saw in them -> faces in the template, float (n, 3, 112, 112) in [0, 1]."""
    faces = [crop_face(i, look.landmarks.astype(float), ALIGNED, 0.0)[0] for i, look in zip(images, looks, strict=True)]
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255


def test_the_sample_people_are_faces_and_differ() -> None:
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    assert bundle.people is not None
    people = sorted(path for path in (bundle.folder / bundle.people).iterdir() if path.is_dir())
    assert len(people) >= 24
    files = [file for person in people for file in sorted(person.glob("*.jpg"))]
    assert len(files) == 10 * len(people)
    images = [np.array(Image.open(file).convert("RGB")) for file in files]
    check = load_face_check(bundle.folder / bundle.face_check)
    looks = check.look(images)
    assert sum(look.score >= check.threshold for look in looks) >= 0.97 * len(images)
    vectors = load_recogniser(bundle.folder / bundle.recogniser).embed(aligned(images, looks))
    assert separation(vectors, torch.arange(len(people)).repeat_interleave(10)) > 0.4


@pytest.fixture(scope="module")
def photos(data: Path) -> tuple[list[RgbImage], Tensor]:
    """Four photos of each of 25 people whom no part of the bundle was trained on; numbers of the people."""
    people = [path for path in sorted((data / "faces" / "eval").iterdir()) if path.is_dir()][:25]
    files = [(number, file) for number, person in enumerate(people) for file in sorted(person.iterdir())[:4]]
    images = [np.array(Image.open(file).convert("RGB")) for _, file in files]
    return images, torch.tensor([number for number, _ in files])


def separation(vectors: Tensor, person: Tensor) -> float:
    """Share of pairs of one person that are more alike than 99 of 100 pairs of two people."""
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    similarity, same = (vectors @ vectors.T)[first, second], person[first] == person[second]
    return float((similarity[same] > similarity[~same].quantile(0.99)).float().mean())


@pytest.mark.parametrize("tap", ["image_embeds", "penultimate"])
def test_the_encoder_tells_people_apart(photos: tuple[list[RgbImage], Tensor], tap: Tap) -> None:
    images, person = photos
    encoder = load_encoder(EncoderParams(source=EMBEDDED), "cpu")
    features = encoder.encode(encoder.pixels(images), tap)
    assert separation(features.flatten(1), person) > 0.2


def test_the_recogniser_tells_people_apart_and_the_check_finds_their_faces(
    photos: tuple[list[RgbImage], Tensor],
) -> None:
    images, person = photos
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    check = load_face_check(bundle.folder / bundle.face_check)
    recogniser = load_recogniser(bundle.folder / bundle.recogniser)
    looks = check.look(images)
    assert sum(look.score >= check.threshold for look in looks) >= 0.97 * len(images)
    usual = np.stack([template_points(bundle.landmarks, image) for image in images])
    assert np.abs(np.stack([look.landmarks for look in looks]) - usual).mean() < 5
    assert separation(recogniser.embed(aligned(images, looks)), person) > 0.5
    assert sum(look.score >= check.threshold for look in check.look([np.full_like(i, 128) for i in images[:5]])) == 0


@pytest.mark.parametrize("tap", ["image_embeds", "penultimate"])
def test_portraits_look_like_the_person_in_the_photo(photos: tuple[list[RgbImage], Tensor], tap: Tap) -> None:
    images = photos[0][::4]
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    encoder = load_encoder(EncoderParams(source=EMBEDDED), "cpu")
    generator = load_generators(EMBEDDED, {tap}, "cpu")[0]
    features, null = encoder.encode(encoder.pixels(images), tap), encoder.null_features(tap)
    drawn = generator.draw(features, null, [bundle.prompt] * len(images), list(range(len(images))))
    assert_alike(images, drawn)


def assert_alike(images: list[RgbImage], drawn: list[RgbImage]) -> None:
    """Each picture shows a face, and resembles the photo that it was drawn from more than those of others."""
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    check, recogniser = (
        load_face_check(bundle.folder / bundle.face_check),
        load_recogniser(bundle.folder / bundle.recogniser),
    )
    vectors = []
    for pictures in (images, drawn):
        looks = check.look(pictures)
        assert np.mean([look.score >= check.threshold for look in looks]) > 0.9
        vectors.append(torch.nn.functional.normalize(recogniser.embed(aligned(pictures, looks)), dim=1))
    similarity = vectors[1] @ vectors[0].T
    others = similarity[~torch.eye(len(images), dtype=torch.bool)]
    assert similarity.diagonal().mean() > others.mean() + 0.25
    assert (similarity.argmax(1) == torch.arange(len(images))).float().mean() > 0.5


def face_embeddings(images: list[RgbImage]) -> Tensor:
    """Unit vectors of the face encoder, preprocessed as insightface does: float (n, 512)."""
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    check = load_face_check(bundle.folder / bundle.face_check)
    pixels = (aligned(images, check.look(images)).mul(255).round() - 127.5) / 127.5
    session = onnxruntime.InferenceSession(bundle.folder / "face_encoder.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    return torch.nn.functional.normalize(torch.from_numpy(found), dim=1)


def test_the_face_encoder_tells_people_apart(photos: tuple[list[RgbImage], Tensor]) -> None:
    images, person = photos
    assert separation(face_embeddings(images), person) > 0.4


def test_insightface_reads_the_face_encoder(photos: tuple[list[RgbImage], Tensor]) -> None:
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    model = model_zoo.get_model(str(bundle.folder / "face_encoder.onnx"), providers=["CPUExecutionProvider"])
    assert (model.taskname, model.input_size, model.input_mean, model.input_std) == (
        "recognition",
        (112, 112),
        127.5,
        127.5,
    )
    images = photos[0][:4]
    check = load_face_check(bundle.folder / bundle.face_check)
    faces = aligned(images, check.look(images)).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    read = torch.from_numpy(np.stack([model.get_feat(face[:, :, ::-1])[0] for face in faces]))
    alike = torch.nn.functional.cosine_similarity(read, face_embeddings(images))
    assert alike.min() > 0.9999


def face_pipeline() -> Any:
    """Generator C as a user of diffusers builds it."""
    bundle = find_bundle(EMBEDDED)
    assert bundle is not None
    entry = next(entry for entry in bundle.generators if entry.tap == "normed_embedding")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(bundle.folder / "vae").float(),
        text_encoder=CLIPTextModel.from_pretrained(bundle.folder / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(bundle.folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(bundle.folder / str(entry.unet)).float(),
        scheduler=DDIMScheduler.from_pretrained(bundle.folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    place = bundle.folder / entry.adapter
    pipeline.load_ip_adapter(str(place.parent), subfolder="", weight_name=place.name, image_encoder_folder=None)
    pipeline.unet.float()
    pipeline.set_ip_adapter_scale(entry.scale)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, entry


def test_portraits_by_the_face_encoder_look_like_the_person(photos: tuple[list[RgbImage], Tensor]) -> None:
    images = photos[0][::4]
    pipeline, entry = face_pipeline()
    drawn = []
    for number, embedding in enumerate(face_embeddings(images)):
        both = torch.stack([torch.zeros_like(embedding), embedding])[:, None]
        picture = pipeline(
            "a photo of a face",
            ip_adapter_image_embeds=[both],
            num_inference_steps=entry.steps,
            guidance_scale=entry.guidance,
            generator=torch.Generator().manual_seed(number),
            height=112,
            width=112,
            output_type="np",
        ).images[0]
        drawn.append((picture * 255).round().astype(np.uint8))
    assert_alike(images, drawn)
