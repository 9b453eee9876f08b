"""Several pictures in one call of a diffusers pipeline, each from a photo of its own."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def a_photo_each(pipeline: Any, count: int) -> Iterator[None]:
    """Let a pipeline meanwhile take the features of as many photos as prompts.

    Of its own accord, a pipeline takes the features of one photo, and repeats what it is given for every prompt.
    """
    if count == 1:
        yield
        return
    prepare = pipeline.prepare_ip_adapter_image_embeds
    takes = inspect.signature(prepare)

    def unrepeated(*given: Any, **named: Any) -> Any:
        bound = takes.bind(*given, **named)
        bound.arguments["num_images_per_prompt"] = 1
        return prepare(*bound.args, **bound.kwargs)

    pipeline.prepare_ip_adapter_image_embeds = unrepeated
    try:
        yield
    finally:
        del pipeline.prepare_ip_adapter_image_embeds
