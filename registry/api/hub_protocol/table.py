"""Every route of the protocol: what is asked, which action it is, and who answers.

A pattern's ``{part}`` is one segment, ``{part...}`` what is left. A route with ``{ns}`` and ``{name}`` is about that repository,
and its action is one on it; ``somewhere`` marks those that name their object in the body and look at it themselves. ``signed``
routes are asked without a token of this registry: what they are asked with was signed by it, see
:mod:`~registry.api.hub_protocol.signing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING

from registry.api.hub_protocol import account, files, lfs, lifecycle, listing, preupload, reading, xet
from registry.api.hub_protocol.commits import commit
from registry.domain.access import Action

if TYPE_CHECKING:
    from starlette.responses import Response

    from registry.api.hub_protocol.asked import Asked

    Handler = Callable[[Asked], Response]

_GET = ("GET", "HEAD")


class Pace(Enum):
    """Which limit counts a writing route. A client that is told to wait does so where it asks about an upload, and gives up where
    it commits: so whoever was let in there is not stopped here, unless they commit without asking."""

    PUSH = auto()
    COMMIT = auto()
    FREE = auto()  #: a step of an upload that was counted already


@dataclass(frozen=True)
class Route:
    methods: tuple[str, ...]
    pattern: str
    action: Action
    handler: Handler
    somewhere: bool = False
    signed: bool = False
    anybody: bool = False  #: tells nothing, and clients ask it without their token
    pace: Pace = Pace.PUSH
    uploads: bool = False  #: has a body that may be long in coming

    @cached_property
    def parts(self) -> list[str]:
        return self.pattern.strip("/").split("/")

    @property
    def names_repository(self) -> bool:
        return "{ns}" in self.pattern

    def match(self, segments: Sequence[str]) -> Mapping[str, str] | None:
        found: dict[str, str] = {}
        for at, part in enumerate(self.parts):
            if part.endswith("...}"):
                rest = "/".join(segments[at:])
                return {**found, part[1:-4]: rest} if rest else None
            if at >= len(segments):
                return None
            segment = segments[at]
            if part.startswith("{"):
                stem, _, suffix = part[1:].partition("}")
                if not segment.endswith(suffix) or segment == suffix:
                    return None
                found[stem] = segment.removesuffix(suffix) if suffix else segment
            elif part != segment:
                return None
        return found if len(segments) == len(self.parts) else None


_MODEL = "/api/models/{ns}/{name}"
_ORGANIZATION = "/api/organizations/{namespace}"
_LFS = "/{ns}/{name}.git/info/lfs/objects"
_CAS = "/xet/{nonce}"

ROUTES: tuple[Route, ...] = (
    Route(_GET, "/api/whoami-v2", Action.READ, account.whoami, somewhere=True),
    Route(_GET, "/api/settings/repositories", Action.READ, account.repositories, somewhere=True),
    Route(_GET, f"{_ORGANIZATION}/settings/repositories", Action.READ, account.repositories, somewhere=True),
    Route(_GET, "/api/models", Action.READ, listing.list_models, somewhere=True),
    Route(("POST",), "/api/validate-yaml", Action.READ, account.validate_yaml, anybody=True),
    Route(("POST",), "/api/repos/create", Action.PUSH, lifecycle.create, somewhere=True),
    Route(("POST",), "/api/repos/move", Action.DELETE, lifecycle.move, somewhere=True),
    Route(("DELETE",), "/api/repos/delete", Action.DELETE, lifecycle.delete, somewhere=True),
    Route(_GET, _MODEL, Action.READ, reading.model_info),
    Route(_GET, f"{_MODEL}/revision/{{revision}}", Action.READ, reading.model_info),
    Route(_GET, f"{_MODEL}/tree/{{revision}}", Action.READ, reading.tree),
    Route(_GET, f"{_MODEL}/tree/{{revision}}/{{path...}}", Action.READ, reading.tree),
    Route(("POST",), f"{_MODEL}/paths-info/{{revision}}", Action.READ, reading.paths_info),
    Route(_GET, f"{_MODEL}/refs", Action.READ, reading.refs),
    Route(_GET, f"{_MODEL}/commits/{{revision}}", Action.READ, reading.commits),
    Route(_GET, f"{_MODEL}/auth-check", Action.READ, account.auth_check),
    Route(_GET, f"{_MODEL}/auth-check/{{kind}}", Action.READ, account.auth_check),
    Route(("PUT",), f"{_MODEL}/settings", Action.PUSH, lifecycle.settings),
    Route(("POST",), f"{_MODEL}/branch/{{branch}}", Action.TAG, lifecycle.create_branch),
    Route(("DELETE",), f"{_MODEL}/branch/{{branch}}", Action.TAG, lifecycle.delete_branch),
    Route(("POST",), f"{_MODEL}/tag/{{revision}}", Action.TAG, lifecycle.create_tag),
    Route(("DELETE",), f"{_MODEL}/tag/{{revision}}", Action.TAG, lifecycle.delete_tag),
    Route(("POST",), f"{_MODEL}/preupload/{{revision}}", Action.PUSH, preupload.preupload),
    Route(("POST",), f"{_MODEL}/commit/{{revision}}", Action.PUSH, commit, pace=Pace.COMMIT, uploads=True),
    Route(("GET",), f"{_MODEL}/xet-write-token/{{revision}}", Action.PUSH, xet.write_token, pace=Pace.FREE),
    Route(("POST",), f"{_LFS}/batch", Action.PUSH, lfs.batch, pace=Pace.FREE),
    Route(("POST",), f"{_LFS}/verify", Action.PUSH, lfs.verify, pace=Pace.FREE),
    Route(
        _GET, "/_signed/{signature}/{ns}/{name}/resolve/{revision}/{path...}", Action.READ, files.signed, signed=True
    ),
    Route(("PUT",), "/_lfs/{signature}", Action.PUSH, lfs.upload, signed=True, uploads=True),
    Route(("POST",), f"{_CAS}/v1/xorbs/{{prefix}}/{{hash}}", Action.PUSH, xet.xorb, signed=True, uploads=True),
    Route(("POST",), f"{_CAS}/v1/shards", Action.PUSH, xet.shard, signed=True, uploads=True),
    Route(_GET, "/v2/repos/{ns}/{name}/version/{version}", Action.READ, account.pbase),
    Route(_GET, "/{ns}/{name}/resolve/{revision}/{path...}", Action.READ, files.resolve),
    Route(_GET, "/{ns}/{name}/raw/{revision}/{path...}", Action.READ, files.resolve),
)


def find(method: str, segments: Sequence[str]) -> tuple[Route, Mapping[str, str]] | None:
    for route in ROUTES:
        if method in route.methods and (params := route.match(segments)) is not None:
            return route, params
    return None


def methods_of(segments: Sequence[str]) -> list[str]:
    """Those that a path takes, empty for a path nobody knows."""
    return sorted({method for route in ROUTES if route.match(segments) is not None for method in route.methods})
