"""What clients of the Hub make exceptions of: a status, ``X-Error-Code``, and a sentence that HEAD has to carry in a header."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.responses import JSONResponse

from registry.api.callers import TooManyRequestsError, UnauthenticatedError
from registry.api.ranges import UnsatisfiableRangeError
from registry.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    RegistryError,
    RejectedError,
    UnavailableError,
)

_log = logging.getLogger("adapters.server")
_MAX_HEADER = 900


class RepositoryMissingError(NotFoundError):
    """``RepositoryNotFoundError`` of the client. Said of what is not there and of what the caller may not know of."""

    default_code = "unknown-adapter"

    def __init__(self, repository: str) -> None:
        super().__init__(f"there is no repository {repository!r:.200}")


class HiddenRepositoryError(UnauthenticatedError):
    """Nobody in particular asks: with a token the answer might be another. For the client it is as if nothing were there."""

    def __init__(self, repository: str) -> None:
        super().__init__(f"there is no repository {repository!r:.200} for those without a token")


class OtherSiteError(DeniedError):
    """A browser sends what a page of another site tells it to, and says which site that is. Clients of the Hub say none."""

    default_code = "other-site"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"a page of {origin!r:.120} asked for a change, without a token", hint="use a client, with a token"
        )


class ForeignRepositoryError(NotFoundError):
    """In a namespace of which nothing is or was here: no code is sent with the 404, so that clients go on with what they have
    in their cache (transformers takes the code as final, even for a cached base model)."""

    default_code = "foreign-repository"

    def __init__(self, repository: str) -> None:
        super().__init__(f"{repository!r:.200} is no repository of this registry")


class RevisionMissingError(NotFoundError):
    default_code = "unknown-revision"

    def __init__(self, repository: str, revision: str) -> None:
        super().__init__(f"{repository} has no revision {revision!r:.120}")


class EntryMissingError(NotFoundError):
    """With the commit's id the client remembers the absence."""

    default_code = "unknown-file"

    def __init__(self, repository: str, commit: str, path: str) -> None:
        super().__init__(f"{repository} at {commit[:12]} has no {path!r:.200}")
        self.commit = commit


class StaleParentError(ConflictError):
    http_status = 412
    default_code = "stale-parent"

    def __init__(self, repository: str, parent: str, head: str) -> None:
        super().__init__(
            f"main of {repository} is at {head}, the commit was made for {parent}; nothing was recorded",
            hint="download main again, and repeat the change on it",
        )


class StrayPartError(ConflictError):
    """Of an upload whose beginning is not what main is: the two would be mixed. No client repeats what is refused so."""

    default_code = "stray-part"

    def __init__(self, shown: str, title: str) -> None:
        super().__init__(
            f"{title!r:.120} is a part of an upload to {shown} that has ended, or that another version came after; "
            "nothing was recorded",
            hint="run the whole upload again; a title of your own may not end in (part N)",
        )


class ReadOnlyRevisionError(DeniedError):
    """A commit to what does not take any."""

    default_code = "read-only-revision"


class NoVersionError(RejectedError):
    """No conflict, which clients take for a name that is there already."""

    default_code = "no-version"

    def __init__(self, shown: str, revision: str) -> None:
        super().__init__(
            f"{shown} at {revision} has no version that a branch or tag could mean",
            hint="push an adapter to main first: branches are aliases of versions",
        )


class OlderContentError(ConflictError):
    """A push of what an earlier version is, exactly: main would still be what came after it."""

    default_code = "older-content"

    def __init__(self, shown: str, number: int, *, newest: int | None, yanked: bool) -> None:
        facts = [f"this is version {number} of {shown} already"]
        ways = []
        if yanked:
            facts.append("which is yanked")
            ways.append(f"take it back: adapters unyank {shown}@{number}")
        if newest is not None and newest > number:
            facts.append(f"and main is version {newest}, which stays the newest")
            ways.append(
                f"point an alias at version {number} (a branch, or adapters alias set), or yank what came after it"
            )
        super().__init__(", ".join(facts), hint="; ".join(ways))


class UnsupportedError(UnavailableError):
    """A part of the protocol that this server does not speak."""

    http_status = 501
    default_code = "unsupported"


class SlowBodyError(InvalidInputError):
    http_status = 408
    default_code = "slow-body"

    def __init__(self, pace: int) -> None:
        super().__init__(f"the body came slower than {pace:,} bytes a second", hint="send it again")


class NotUploadedError(InvalidInputError):
    default_code = "not-uploaded"

    def __init__(self, path: str, oid: str) -> None:
        super().__init__(
            f"{path} was not uploaded: nothing with SHA-256 {oid} came from you, or it was collected since",
            hint="upload it again",
        )


class TooLargeError(InvalidInputError):
    http_status = 413
    default_code = "too-large"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is larger than {limit:,} bytes")


def refusal(error: RegistryError) -> JSONResponse:
    """The answer to an error. A hint may name what else there is, so a search that fails gives none."""
    hint = None if isinstance(error, NotFoundError) else error.hint
    findings = error.findings
    sentences = [f"{finding.message} [{finding.rule}]" for finding in findings] or [error.message_elsewhere]
    if findings and (verdict := error.verdict):
        sentences.insert(0, str(verdict))
    text = "; ".join(sentences) + (f" ({hint})" if hint else "")
    headers = {"X-Error-Message": header_text(text), "Cache-Control": "no-store"}
    if code := _client_code(error):
        headers["X-Error-Code"] = code
    if isinstance(error, EntryMissingError):
        headers["X-Repo-Commit"] = error.commit
    if isinstance(error, UnsatisfiableRangeError):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, SlowBodyError):
        headers["Connection"] = "close"
    if isinstance(error, TooManyRequestsError):
        headers |= {"Retry-After": str(error.after), "RateLimit": f'"api";r=0;t={error.after}'}
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if isinstance(error, CorruptionError) or error.path is not None:
        _log.error("%s: %s", error.code, error.message)
    return JSONResponse({"error": text, "code": error.code}, error.http_status, headers)


def header_text(text: str) -> str:
    """One line of printable ASCII: what a header may hold."""
    plain = " ".join(text.split()).encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in plain)[:_MAX_HEADER]


def _client_code(error: RegistryError) -> str | None:
    if isinstance(error, ForeignRepositoryError):
        return None
    if isinstance(error, RevisionMissingError):
        return "RevisionNotFound"
    if isinstance(error, EntryMissingError):
        return "EntryNotFound"
    unknown = isinstance(error, HiddenRepositoryError) or error.code == "unknown-adapter"
    return "RepoNotFound" if unknown else None
