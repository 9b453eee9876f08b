"""What happens with photos that cannot be used: they are refused in one error, or told and skipped."""

from ireu_cli.errors import PhotoError
from ireu_cli.session import Session


def refuse_or_note(session: Session, bad: dict[str, str], labels: dict[str, str], flag: str, what: str) -> None:
    """Refuse unusable photos, or say that they are skipped, as `data.bad_photos` says.

    Args:
        session: the run.
        bad: for each, its key and why.
        labels: by key, what messages call it.
        flag: the flag that named the folder.
        what: what the photos are, for messages.

    Raises:
        PhotoError: there are some and it is `error`.
    """
    if session.config.data.bad_photos == "error":
        refuse_bad(bad, labels, flag)
    elif bad:
        reasons = "; ".join(sorted(set(bad.values())))
        session.talk.note(f"{what}: {len(bad)} unusable photos skipped ({reasons})")
        if session.talk.verbose:
            for key, reason in bad.items():
                session.talk.note(f"{what}: {labels[key]} {reason}")


def no_usable_photo() -> PhotoError:
    """The error for a target without usable photos."""
    return PhotoError("A target has no usable photo", "Replace the unusable photos of that person")


def refuse_bad(bad: dict[str, str], labels: dict[str, str], flag: str) -> None:
    """Raise one error that lists unusable photos.

    Args:
        bad: key and reason, as `Encodings.fill` returns them.
        labels: key and label of every item.
        flag: the flag that named the folder.

    Raises:
        PhotoError: when there is any.
    """
    if not bad:
        return
    listed = [f"{labels[key]} {reason}" for key, reason in bad.items()]
    more = f", and {len(listed) - 5} more" if len(listed) > 5 else ""
    sentence = "; ".join(listed[:5]) + more
    raise PhotoError(
        f"{flag}: {sentence}", "Replace or remove these files, or go on without them with --bad-photos skip"
    )
