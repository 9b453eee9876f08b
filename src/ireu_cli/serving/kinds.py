"""The kinds of services that ireu knows, and which one is at a URL."""

from dataclasses import dataclass
from pathlib import Path

from ireu_cli.errors import UserError
from ireu_cli.serving.service import Service, read_token
from ireu_cli.serving.sglang import Sglang
from ireu_cli.serving.stack import Stack
from ireu_cli.serving.triton import Triton

KINDS = ("sglang", "triton")


@dataclass(frozen=True)
class Where:
    """A place in a service, as an operator names it.

    `kind` is one of `KINDS`, or None to find out. `module` and `path` are SGLang-Diffusion's, `repository` and `model`
    are Triton's.
    """

    url: str
    kind: str | None = None
    module: str | None = None
    path: str | None = None
    repository: Path | None = None
    model: str | None = None
    token_file: Path | None = None
    token_header: str | None = None


def open_stack(where: Where) -> Stack:
    """The place in the service that an operator means.

    Raises:
        UserError: the URL, the kind, the token or a name cannot be used, or is missing.
        ServiceError: nobody answers.
    """
    token = None if where.token_file is None else read_token(where.token_file, where.token_header)
    service = Service(where.url, token)
    kind = where.kind or _kind_of(where, service)
    if kind not in KINDS:
        raise UserError(f"{kind} is no kind of service that ireu knows", f"Use --to {' or --to '.join(KINDS)}")
    wrong: dict[str, object] = {"--module": where.module, "--path-on-server": where.path}
    if kind == "sglang":
        wrong = {"--repository": where.repository, "--model": where.model}
    if given := [flag for flag, value in wrong.items() if value is not None]:
        raise UserError(f"{given[0]} says nothing to {kind}", "Leave it out, or name the kind of service with --to")
    if kind == "sglang":
        return Sglang(service, where.module or "image_encoder", where.path)
    if where.repository is None or where.model is None:
        raise UserError(
            "Triton does not say what it holds", "Name its model repository with --repository, and the --model in it"
        )
    return Triton(service, where.repository, where.model)


def _kind_of(where: Where, service: Service) -> str:
    if where.repository is not None or where.model is not None:
        return "triton"
    answer = service.get("v2")
    return "triton" if answer.is_good and isinstance(answer.body, dict) and "extensions" in answer.body else "sglang"
