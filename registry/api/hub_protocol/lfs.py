"""Git-LFS, as clients without Xet upload: a batch says what is missing, each object goes to an address of its own, and is verified.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md. The answer never says ``xet``: the generations that offer it there
would leave LFS for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from registry.api.hub_protocol.asked import text_of
from registry.api.hub_protocol.uploads import WrongSizeError, take
from registry.domain.digest import Digest
from registry.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from registry.api.hub_protocol.asked import Asked

PURPOSE = "lfs"
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_OID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST = 1000
#: Seconds in which an upload has to begin.
_LIFETIME = 3600.0


def batch(asked: Asked) -> Response:
    document = asked.json()
    objects = document.get("objects", [])
    if document.get("operation") != "upload" or document.get("hash_algo", "sha256") != "sha256":
        raise InvalidInputError("only uploads of objects by their SHA-256 are served here", code="invalid-body")
    if not isinstance(objects, list) or len(objects) > _MOST:
        raise InvalidInputError(f"objects is expected as a list of at most {_MOST:,}", code="invalid-body")
    answer = {"transfer": "basic", "objects": [_object(each, asked) for each in objects], "hash_algo": "sha256"}
    return JSONResponse(answer, media_type=_MEDIA_TYPE)


def upload(asked: Asked) -> Response:
    """The address says for whose token, what and how much; nothing else is asked."""
    facts = asked.services.signer.read(PURPOSE, asked.params["signature"])
    actor = asked.services.gatekeeper.holder_of(facts.get("token")).actor
    digest, size = Digest(facts["digest"]), int(facts["size"])
    announced = asked.request.headers.get("content-length")
    if announced is None:
        raise LengthRequiredError("the upload has no Content-Length")
    if announced != str(size):
        raise WrongSizeError("the upload", size, announced)
    take(digest, size, asked.chunks(limit=size), asked.services.registry.blobs)
    asked.services.possessions.note(actor, digest)
    return Response(status_code=200)


def verify(asked: Asked) -> Response:
    digest, size = _named(asked.json())
    if not _is_stored(digest, size, asked):
        raise NotFoundError(f"no object {digest} with {size:,} bytes came from you", code="not-uploaded")
    return JSONResponse({}, media_type=_MEDIA_TYPE)


class LengthRequiredError(InvalidInputError):
    http_status = 411
    default_code = "length-required"


def _object(wanted: object, asked: Asked) -> dict[str, Any]:
    digest, size = _named(wanted if isinstance(wanted, dict) else {})
    found: dict[str, Any] = {"oid": digest.hex, "size": size}
    if size > asked.settings.max_blob:
        found["error"] = {"code": 413, "message": f"larger than {asked.settings.max_blob:,} bytes"}
    elif not _is_stored(digest, size, asked):
        facts = {"digest": digest, "size": size, "token": asked.caller.token_id}
        signature = asked.services.signer.signed(PURPOSE, facts, seconds=_LIFETIME)
        objects = f"{asked.address}/{asked.repository.shown}.git/info/lfs/objects"
        found["actions"] = {
            "upload": {"href": f"{asked.address}/_lfs/{signature}", "header": {}, "expires_in": int(_LIFETIME)},
            "verify": {"href": f"{objects}/verify", "header": {}},
        }
    return found


def _is_stored(digest: Digest, size: int, asked: Asked) -> bool:
    """For this caller: what they may neither read nor have sent is not here for them."""
    return asked.services.possessions.promise(asked.caller, digest) == size


def _named(document: Mapping[str, Any]) -> tuple[Digest, int]:
    oid, size = text_of(document, "oid", default=""), document.get("size")
    if not _OID.fullmatch(oid) or not isinstance(size, int) or size < 0:
        raise InvalidInputError("an object is expected as a SHA-256 and a size", code="invalid-body")
    return Digest.of_hex(oid), size
