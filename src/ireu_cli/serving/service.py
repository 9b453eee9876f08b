"""A service over HTTP: JSON in, JSON out, with bounds on size and time. What it answers is somebody else's."""

import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from ireu_cli.errors import ServiceError, UserError
from ireu_cli.support.bounded import ContentError, printable, read_json
from ireu_cli.values import Json

_MOST = 1 << 24
"""The most bytes of an answer."""
_CONNECT = 10.0
"""The longest time in seconds until somebody answers at all."""
_REFUSED = frozenset({401, 403})
_PORTS = {"http": 80, "https": 443}
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")


@dataclass(frozen=True)
class Answer:
    """The status of an answer and its body; None where the body is empty or no JSON."""

    status: int
    body: Json

    @property
    def is_good(self) -> bool:
        """Whether the service did what it was asked."""
        return self.status == 200

    @property
    def is_refusal(self) -> bool:
        """Whether the service says that it will not do it."""
        return 400 <= self.status < 500

    @property
    def words(self) -> str:
        """What the service says went wrong, in one line."""
        if isinstance(self.body, dict):
            for key in ("message", "error", "detail"):
                if isinstance(self.body.get(key), str):
                    return f"HTTP {self.status}: {printable(self.body[key], 300)}"
        return f"HTTP {self.status}"


@dataclass(frozen=True)
class Token:
    """An administrator's token, and the header that carries it; without one it is sent as a bearer token."""

    secret: str
    header: str | None = None

    def headers(self) -> dict[str, str]:
        """The header with the token."""
        return {self.header: self.secret} if self.header else {"Authorization": f"Bearer {self.secret}"}


class Service:
    """The one at a URL. A redirect is not followed, because it would take the token elsewhere."""

    def __init__(self, url: str, token: Token | None = None, patience: float = 600.0) -> None:
        """Check the URL.

        Args:
            url: `http://host:port` or `https://…`, with a path if the service lies behind one.
            token: sent with every request.
            patience: the longest time in seconds for an answer.

        Raises:
            UserError: the URL is none, or holds a password.
        """
        self.url, self._token, self.patience = checked_url(url), token, patience

    def get(self, path: str) -> Answer:
        """Ask for a path below the URL.

        Raises:
            ServiceError: nobody answers, or refuses the token.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, body: Json) -> Answer:
        """Send JSON to a path below the URL.

        Raises:
            ServiceError: nobody answers, or refuses the token.
        """
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Json) -> Answer:
        deadline = time.monotonic() + self.patience
        try:
            with (
                requests.Session() as session,
                session.request(
                    method,
                    f"{self.url}/{path}",
                    json=body,
                    headers={"Accept": "application/json"},
                    auth=self._signed,
                    timeout=(_CONNECT, self.patience),
                    allow_redirects=False,
                    stream=True,
                ) as found,
            ):
                answer = Answer(found.status_code, self._json_of(found, deadline))
        except (requests.RequestException, ValueError) as error:  # Some bad hosts are no errors of requests.
            raise ServiceError(
                f"The service at {self.url} does not answer ({_cause(error)})", "Check the URL, and that it runs"
            ) from None
        if answer.status in _REFUSED:
            raise ServiceError(
                f"The service at {self.url} refuses access ({answer.words})",
                "Give its administrator's token with --token-file",
            )
        return answer

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token into a request; a password of ~/.netrc never takes its place."""
        if self._token is not None:
            request.headers.update(self._token.headers())
        return request

    def _json_of(self, found: requests.Response, deadline: float) -> Json:
        held = bytearray()
        # Piece by piece as they arrive, so that a slow drip is seen to be one.
        while part := found.raw.read1(1 << 16, decode_content=True):
            held += part
            if len(held) > _MOST:
                raise requests.RequestException("its answer is too long")
            if time.monotonic() > deadline:
                raise requests.Timeout
        if self._token is not None:
            # Some servers repeat what they refuse.
            held = held.replace(self._token.secret.encode(), b"[token]")
        try:
            return read_json(bytes(held), _MOST, name="The answer", repeats=True) if held else None
        except ContentError:
            return None


def checked_url(url: str) -> str:
    """A URL in the one way of writing it: small letters, no usual port, no slash at its end.

    Raises:
        UserError: it is none, or it holds a password, a query or a fragment.
    """
    shown = printable(url, 200)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in _PORTS or port == 0 or not url.isprintable() or not url.isascii():
        raise UserError(f"{shown} is no URL of a service", "Give one such as http://localhost:8000")
    if parts.username or parts.password:
        raise UserError("The URL holds a user name or a password", "Give a token with --token-file")
    if parts.query or parts.fragment:
        raise UserError(f"The URL {shown} has a query or a fragment", "Leave them out")
    host = f"[{host}]" if ":" in host else host
    place = host if port in {None, _PORTS[parts.scheme]} else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def read_token(path: Path, header: str | None = None) -> Token:
    """The token in a file.

    Raises:
        UserError: it cannot be read, others can read it, or it holds no token.
    """
    remedy = "Name a file that holds the token alone, and that not everybody can read"
    try:
        held = path.stat()
        if not stat.S_ISREG(held.st_mode):
            raise UserError(f"The token file {path} is no file", remedy)
        if os.name == "posix" and held.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise UserError(f"Everybody on this machine can read the token file {path}", remedy)
        with path.open("rb") as file:
            token = file.read(1 << 14).strip()
    except OSError as error:
        raise UserError(f"The token file {path} cannot be read ({error.strerror})", remedy) from None
    if not token or not token.isascii() or not token.decode("ascii", "replace").isprintable() or b" " in token:
        raise UserError(f"The token file {path} holds no token", remedy)
    if header is not None and not _HEADER.fullmatch(header):
        raise UserError(f"{printable(header)} is no name of a header", "Give the one that the service asks for")
    return Token(token.decode("ascii"), header)


def _cause(error: Exception) -> str:
    """Few words for what a library says in many."""
    if isinstance(error, requests.Timeout):
        return "it takes too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be verified"
    if isinstance(error, requests.ConnectionError):
        return "no connection, or it was cut"
    return printable(str(error), 200)
