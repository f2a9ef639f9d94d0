"""What goes wrong with ``huggingface_hub``, in this project's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import ceil
from typing import Any

from registry.errors import (
    ConflictError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)

#: Of an answer that is malformed the library raises whatever reading it raised.
_MISREAD = (KeyError, TypeError, AttributeError)
_DAY = 86_400
#: Characters; one about licences names all that there are.
_LONGEST_COMPLAINT = 1200
_LOGIN = "`hf auth login`, or set HF_TOKEN to a token that may"


@contextmanager
def asking(where: str, *, instead: str | None = None) -> Iterator[None]:
    """``where`` is the repository, as a person writes it: ``hf://org/name@main``. ``instead`` is what does without the Hub.

    Raises NotFoundError, DeniedError, ConflictError, InvalidInputError, UnavailableError."""
    or_else = f", or {instead}" if instead else ""
    try:
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "the Hub is asked by huggingface_hub, which is not installed",
            code="hub-missing",
            hint=f"pip install 'adapter-registry[hub]'{or_else}",
        ) from error
    transport = errors.HTTPError  # type: ignore[attr-defined]  # what nobody answering is to httpx or requests
    try:
        yield
    except (RuntimeError, errors.LocalEntryNotFoundError) as error:  # what failed says its cause
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refused(where, cause) from error
        raise _unavailable(where, cause if isinstance(cause, Exception) else error, or_else) from error
    except errors.GatedRepoError as error:
        raise DeniedError(
            f"{where} is gated, and you have not been let in",
            code="gated-repository",
            hint="accept its conditions on its page, then `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NotFoundError(
            f"the Hub has no {where}, or keeps it from you",
            code="unknown-repository",
            hint=f"check name and revision; where it is private, {_LOGIN}",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, error) from error
    except ValueError as error:
        if isinstance(error.__cause__, errors.BadRequestError):  # of validate-yaml alone
            raise _card_refused(where, error) from error
        raise _unavailable(where, error, or_else) from error
    except (OSError, transport, errors.SafetensorsParsingError, *_MISREAD) as error:
        raise _unavailable(where, error, or_else) from error


def shown(repository: str, revision: str | None = None) -> str:
    return f"hf://{repository}{f'@{revision}' if revision else ''}"


def reason(error: Exception) -> str:
    """What the Hub said, else the first line of what the library says of it, without its request's address."""
    said = (getattr(error, "server_message", None) or str(error)).strip()
    return f"{said.splitlines()[0] if said else type(error).__name__:.300}"


def answer_behind(error: BaseException | None) -> Any:
    """The answer that an error, or what it came from, was made of; None if there was none."""
    while error is not None:
        if (answer := getattr(error, "response", None)) is not None:
            return answer
        error = error.__cause__
    return None


def seconds_to_wait(answer: Any) -> float | None:
    """What an answer that may be another one later says about when: of its rate limit, else ``Retry-After`` in seconds.

    https://huggingface.co/docs/hub/rate-limits"""
    if getattr(answer, "status_code", 0) not in (429, 502, 503, 504):
        return None
    parse = getattr(import_module("huggingface_hub.utils"), "parse_ratelimit_headers", None)  # younger than the library
    limit = parse(answer.headers) if parse is not None and answer.status_code == 429 else None
    if limit is not None and limit.remaining == 0:
        return float(min(limit.reset_in_seconds, _DAY))
    said = answer.headers.get("Retry-After", "").strip()
    return float(min(int(said), _DAY)) if said.isascii() and said.isdecimal() and len(said) < 20 else None


def in_words(seconds: float) -> str:
    return f"{ceil(seconds)} s" if seconds <= 120 else f"{ceil(seconds / 60):,} min"


def busy(where: str, seconds: float | None, said: str = "") -> UnavailableError:
    """``seconds`` is how long the Hub asks to wait, if it says."""
    until = f", and asks to wait {in_words(seconds)}" if seconds else ""
    return UnavailableError(
        f"the Hub cannot do that now for {where}{until}{f': {said}' if said else ''}",
        code="hub-unavailable",
        hint=f"try again in {in_words(seconds)}" if seconds else "wait a little, then try again",
    )


def malformed(where: str, what: str) -> UnavailableError:
    return UnavailableError(
        f"the Hub's answer about {where} cannot be: {what}",
        code="hub-malformed",
        hint="check HF_ENDPOINT: is that a Hugging Face Hub?",
    )


def _unavailable(where: str, error: Exception, or_else: str) -> UnavailableError:
    return UnavailableError(
        f"the Hub could not be asked about {where}: {reason(error)}",
        code="hub-unavailable",
        hint=f"check the connection and HF_ENDPOINT, then try again{or_else}; nothing here was changed",
    )


def _card_refused(where: str, error: ValueError) -> InvalidInputError:
    """The library's message has a line for every complaint of the Hub."""
    title, *complaints = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    said = ": ".join(part for part in (title.rstrip("."), "; ".join(complaints)) if part)
    return InvalidInputError(
        f"the Hub refuses what was asked of {where}: {said:.{_LONGEST_COMPLAINT}}",
        code="hub-refused",
        hint="mend what stands between the lines --- at the top of README.md, and push again",
    )


def _refused(where: str, error: Exception) -> RegistryError:
    status, said = getattr(getattr(error, "response", None), "status_code", 0), reason(error)
    if status in (401, 403):
        return DeniedError(
            f"the Hub does not let you do that with {where}: {said}", hint=f"if it is for want of rights: {_LOGIN}"
        )
    if status == 404:
        return NotFoundError(f"the Hub does not find what was asked of {where}: {said}", code="unknown-repository")
    if status == 409 and _code(error):  # a server of this project says what it is, and it is no race
        return ConflictError(f"the Hub refuses what was asked of {where}: {said}", code="hub-refused")
    if status in (409, 412):
        return ConflictError(
            f"{where} changed meanwhile: {said}",
            code="hub-moved",
            hint="look at what came, then give the command again",
        )
    if 400 <= status < 500 and status not in (408, 429):
        return InvalidInputError(f"the Hub refuses what was asked of {where}: {said}", code="hub-refused")
    return busy(where, seconds_to_wait(getattr(error, "response", None)), said)


def _code(error: Exception) -> str | None:
    """What a server of this project calls the error, if the answer is of one."""
    try:
        said = error.response.json()  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return None
    code = said.get("code") if isinstance(said, dict) else None
    return code if isinstance(code, str) else None
