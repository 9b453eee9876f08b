"""The only table of mounts. One of somebody else's joins it by `register`."""

from ireu_cli.errors import ModelError
from ireu_cli.generators.flux import Flux
from ireu_cli.generators.mount import Mount
from ireu_cli.generators.stable_diffusion import StableDiffusion

_MOUNTS: list[Mount] = [Flux(), StableDiffusion()]
"""The first that takes a pipeline drives it; the last takes all that have `load_ip_adapter`."""


def mount_of(kind: type) -> Mount:
    """How pipelines of a class are driven.

    Raises:
        ModelError: they take no IP-Adapter.
    """
    found = next((mount for mount in _MOUNTS if mount.takes(kind)), None)
    if found is None:
        raise ModelError(f"{kind.__name__} of diffusers takes no IP-Adapter", "Name a pipeline with load_ip_adapter")
    return found


def register(mount: Mount) -> None:
    """Add a mount, which is asked before all others."""
    _MOUNTS.insert(0, mount)
