"""Bytes by their digest. What one may neither read nor has sent is not there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from anyio import move_on_after, to_thread
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from registry.api.callers import Caller, Requires
from registry.api.names import Digest
from registry.api.preconditions import Conditional
from registry.api.ranges import partial_answer
from registry.api.texts import RequestBody
from registry.api.uploads import WrongOffsetError
from registry.domain.access import Action
from registry.domain.digest import Digest as DigestText
from registry.errors import InvalidInputError, MissingBlobError, NotFoundError

if TYPE_CHECKING:
    from registry.api.possessions import Possessions
    from registry.api.uploads import Upload, Uploads

router = APIRouter(prefix="/v1", tags=["blobs"])

Reader = Annotated[Caller, Depends(Requires(Action.READ, somewhere=True))]
Asker = Annotated[Caller, Depends(Requires(Action.PUSH, somewhere=True))]
Sender = Annotated[Caller, Depends(Conditional(Action.PUSH, somewhere=True))]
_BUFFER = 1 << 20
#: Seconds without a byte after which a sender is gone: one that vanished without a word would lock itself out of going on.
_PATIENCE = 30.0


class LengthRequiredError(InvalidInputError):
    http_status = 411
    default_code = "length-required"


class TooLargeError(InvalidInputError):
    http_status = 413
    default_code = "too-large"


class EncodedError(InvalidInputError):
    http_status = 415
    default_code = "content-encoding"


class Digests(RequestBody):
    digests: list[str] = Field(max_length=2000)


@router.head("/blobs/{digest}", summary="Is it there, and how long is it?", operation_id="look_at_blob")
@router.get("/blobs/{digest}", summary="The bytes, whole or a range of them", operation_id="read_blob")
def read_blob(request: Request, caller: Reader, digest: Digest) -> Response:
    if not _possesses(request, caller, digest):
        raise _no_blob(digest)
    return partial_answer(
        request,
        digest,
        caller.registry.blobs,
        {"ETag": f'"{digest}"', "Cache-Control": "private, max-age=31536000, immutable"},
    )


@router.put("/blobs/{digest}", summary="Send a blob in one piece", status_code=201)
async def put_blob(request: Request, caller: Sender, digest: Digest) -> Response:
    """All or nothing: what has another digest, or ends early, is not kept."""
    length = _length(request)
    known = await to_thread.run_sync(_possesses, request, caller, digest)
    uploads: Uploads = request.app.state.uploads
    with ExitStack() as stack:
        upload = await to_thread.run_sync(stack.enter_context, uploads.in_one_piece(digest))
        if await _received(request, upload, length) != length:
            raise InvalidInputError(f"the body ended before its {length:,} bytes", code="size-mismatch")
        await to_thread.run_sync(_finish, request, caller, digest, upload)
    return Response(status_code=200 if known else 201)


@router.get("/uploads/{digest}", summary="Where the caller's upload of a blob stands")
def upload_offset(request: Request, caller: Asker, digest: Digest) -> dict[str, int]:
    return {"offset": request.app.state.uploads.offset(caller.actor, digest)}


@router.patch("/uploads/{digest}", summary="Go on with an upload")
async def patch_upload(
    request: Request,
    caller: Sender,
    digest: Digest,
    upload_offset: Annotated[int, Header(ge=0, description="Where these bytes belong: where the upload stands.")],
    upload_length: Annotated[int, Header(ge=0, description="Of the whole blob.")],
) -> Response:
    """What arrives is kept even if the connection breaks. With the last byte it becomes a blob (201)."""
    length = _length(request, at_most=upload_length - upload_offset)
    _require_room(request, upload_length)
    uploads: Uploads = request.app.state.uploads
    with ExitStack() as stack:
        upload = await to_thread.run_sync(stack.enter_context, uploads.opened(caller.actor, digest, upload_length))
        if upload.offset != upload_offset:
            raise WrongOffsetError(upload.offset)
        await _received(request, upload, length)
        if upload.offset < upload_length:
            return Response(status_code=202, headers={"Upload-Offset": str(upload.offset)})
        await to_thread.run_sync(_finish, request, caller, digest, upload)
    return Response(status_code=201, headers={"Upload-Offset": str(upload_length)})


@router.post("/blobs/missing", summary="Which of these the caller would have to send")
def missing(request: Request, caller: Asker, asked: Digests) -> dict[str, list[str]]:
    possessions: Possessions = request.app.state.possessions
    wanted = [DigestText(text) for text in asked.digests]
    return {"missing": [digest for digest in wanted if possessions.promise(caller, digest) is None]}


async def _received(request: Request, upload: Upload, length: int) -> int:
    """Bytes that came before the end, or before the connection broke or fell silent.

    Raises InvalidInputError for more than ``length``: not every server refuses a chunked body that has a Content-Length too.
    """
    count, waiting, body = 0, bytearray(), request.stream()
    try:
        while True:
            chunk = None
            with move_on_after(_PATIENCE):
                chunk = await anext(body, None)
            if chunk is None:
                break
            waiting += chunk
            count += len(chunk)
            if count > length:
                raise InvalidInputError(f"the body goes on after its {length:,} bytes", code="size-mismatch")
            if len(waiting) >= _BUFFER:
                await to_thread.run_sync(upload.append, bytes(waiting))
                waiting.clear()
    except ClientDisconnect:
        pass
    if waiting:
        await to_thread.run_sync(upload.append, bytes(waiting))
    return count


def _finish(request: Request, caller: Caller, digest: Digest, upload: Upload) -> None:
    upload.finish(caller.registry.blobs)
    possessions: Possessions = request.app.state.possessions
    possessions.note(caller.actor, digest)


def _length(request: Request, *, at_most: int | None = None) -> int:
    """Of the body that comes. Raises InvalidInputError for one that does not say it, is too long or encoded."""
    encodings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    if any(encoding.strip() not in ("", "identity") for encoding in encodings):
        raise EncodedError("the body is encoded, expected the bytes as they are")
    if any(kind.lower().startswith("multipart/") for kind in request.headers.getlist("content-type")):
        raise EncodedError("the body is multipart, expected the bytes as they are", code="content-type")
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        raise LengthRequiredError("the body does not say its length", hint="send Content-Length")
    length = int(text)
    if at_most is not None and length > at_most:
        raise InvalidInputError(f"{length:,} bytes do not fit into the rest of {at_most:,}", code="size-mismatch")
    _require_room(request, length)
    return length


def _require_room(request: Request, length: int) -> None:
    largest: int = request.app.state.settings.max_blob
    if length > largest:
        raise TooLargeError(f"a blob of {length:,} bytes, expected at most {largest:,}")


def _possesses(request: Request, caller: Caller, digest: Digest) -> bool:
    possessions: Possessions = request.app.state.possessions
    try:
        possessions.size(caller, digest)
    except MissingBlobError:
        return False
    return True


def _no_blob(digest: Digest) -> NotFoundError:
    return NotFoundError(f"there is no blob {digest}", code="unknown-blob")
