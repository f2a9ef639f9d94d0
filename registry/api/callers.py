"""Who is asking, and whether they may.

Every route declares its action by depending on :class:`Requires`; there is no path prefix that decides, and no "else". Whoever
may not know that an adapter exists is answered as if it did not: the same sentence, the same status.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import Request

from registry.api.freshness import settled
from registry.api.limits import Limits
from registry.api.settings import LOOPBACK, Settings
from registry.connect import EmbeddedRegistry
from registry.domain.access import Action, Presented, Token
from registry.domain.moments import utc_now
from registry.domain.names import AdapterName, Reference
from registry.domain.query import Visible
from registry.domain.version import Version
from registry.errors import DeniedError, InvalidInputError, InvalidNameError, NotFoundError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from registry.operations.gate import Scores

_HOST = re.compile(r"(?:(?P<name>[^:\[\]]*)|\[(?P<address>[^\[\]]*)\])(?::[0-9]*)?")


@dataclass(frozen=True)
class Caller:
    """``registry`` writes under their name. ``open`` is a server without tokens on the loopback interface: its only user may do
    everything."""

    registry: EmbeddedRegistry
    actor: str
    token: Token | None
    open: bool
    anonymous_read: bool

    @property
    def token_id(self) -> str | None:
        return self.token.id if self.token is not None else None

    @property
    def visible(self) -> Visible | None:
        """What a search may show; None for everything."""
        if self.open or (self.token and Action.ADMIN in self.token.actions):
            return None
        patterns = self.token.patterns if self.token and Action.READ in self.token.actions else ()
        return Visible(tuple(patterns), self.anonymous_read)

    def may(self, action: Action, adapter: AdapterName | None = None) -> bool:
        if self.open or (self.token is not None and self.token.may(action, adapter)):
            return True
        if action is not Action.READ or not self.anonymous_read:
            return False
        if adapter is None:
            return True
        known = self.registry.catalog.find_adapter(adapter)
        return known is not None and not known.private

    def own_action(self, adapter: AdapterName) -> Action:
        """Something that they may do with it; to read it, where that is everything or nothing."""
        return next((action for action in (Action.READ, *Action) if self.may(action, adapter)), Action.READ)

    def own_view_of(self, found: Version) -> Version | None:
        """A version that was named by its digest, as they may know it: the same content may be a version of several adapters, of
        which they may read some. None if they may read none."""
        if self.may(Action.READ, found.adapter):
            return found
        catalog = self.registry.catalog
        holders = (adapter for adapter in catalog.holders(found.digest) if self.may(Action.READ, adapter))
        return next((version for adapter in holders if (version := catalog.find_version(adapter, found.digest))), None)

    def reference(self, text: str) -> Reference:
        """What a reference means to them. Raises NotFoundError as for nothing, for what they may not read."""
        parsed = Reference.parse(text, namespace=self.registry.namespace)
        adapter, reference = self.named(parsed, self.registry.catalog)
        self.require(Action.READ, adapter)
        return reference

    def named(self, reference: Reference, catalog: Scores) -> tuple[AdapterName, Reference]:
        """A digest is one of a version of an adapter that they may read. Raises NotFoundError."""
        if reference.adapter is not None:
            return reference.adapter, reference
        version = self.own_view_of(catalog.resolve(reference))
        if version is None:
            raise NotFoundError(f"no version has digest {reference.digest_start}", code="unknown-version")
        return version.adapter, Reference(version.adapter, number=version.number)

    def may_read(self, reference: object) -> bool:
        """Whether a reference, as a fact or a manifest has it, is of an adapter that they may read; what is none, is of none."""
        try:
            adapter = Reference.parse(reference).adapter if isinstance(reference, str) else None
        except InvalidNameError:
            return False
        return adapter is not None and self.may(Action.READ, adapter)

    def require_change(self) -> None:
        """For transactions, whose steps are looked at one by one: raises DeniedError for whoever may change nothing anywhere."""
        if self.open:
            return
        if self.token is None:
            raise UnauthenticatedError
        if self.token.actions <= {Action.READ}:
            raise DeniedError("this token may not change anything", code="forbidden", hint="ask an administrator")

    def require_visibility(self, adapter: AdapterName, *, private: bool) -> None:
        """Whoever may push may hide; what is hidden is shown by those alone who could take it away altogether. Raises
        DeniedError, NotFoundError."""
        if not private:
            known = self.registry.catalog.find_adapter(adapter)
            if known is not None and known.private:
                self.require(Action.DELETE, adapter)

    def require_anywhere(self, action: Action) -> None:
        """For a route that looks at its objects one by one: raises DeniedError for whoever may do this nowhere."""
        if self.open or (action is Action.READ and (self.token or self.anonymous_read)):
            return
        if self.token is None:
            raise UnauthenticatedError
        if not self.token.actions & {action, Action.ADMIN}:
            raise DeniedError(f"this token may not {action.value}", code="forbidden", hint="ask an administrator")

    def require(self, action: Action, adapter: AdapterName | None = None) -> None:
        """Raises DeniedError, or NotFoundError where the adapter's existence is not theirs to know."""
        if self.may(action, adapter):
            return
        if self.token is None and not (self.anonymous_read and action is Action.READ):
            raise UnauthenticatedError
        hidden = adapter is not None and not self.may(Action.READ, adapter)
        if adapter is not None and hidden and action is not Action.PUSH and not self.may(Action.PUSH, adapter):
            raise unknown_adapter(adapter)
        if adapter is not None and hidden:  # the same whether it is there or not
            where = f" in {adapter.namespace}"
        else:
            where = f" {adapter}" if adapter is not None else ""
        raise DeniedError(
            f"this token may not {action.value}{where}",
            code="forbidden",
            hint="ask an administrator for a token that may: adapters token create",
        )


def shown_parents(caller: Caller, edges: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Edges of a lineage; a parent that the caller may not read is there by its digest alone. This is manners, not a secret: the
    manifest is immutable and has the names, and whoever may read a version may read it."""
    return [{**edge, "reference": edge["reference"] if caller.may_read(edge["reference"]) else None} for edge in edges]


class UnauthenticatedError(DeniedError):
    """Nobody said who they are, or what they said is no live token."""

    http_status = 401
    default_code = "unauthenticated"

    def __init__(self, message: str = "this needs a token", *, hint: str | None = None) -> None:
        super().__init__(
            message, hint=hint or "send `Authorization: Bearer adr_…`; on the command line: adapters login"
        )


class TooManyRequestsError(DeniedError):
    """``after`` is in whole seconds."""

    http_status = 429
    default_code = "too-many-requests"

    def __init__(self, after: int) -> None:
        super().__init__("too many requests", hint=f"wait {after} s")
        self.after = after


def unknown_adapter(adapter: AdapterName) -> NotFoundError:
    return NotFoundError(f"there is no adapter {adapter}", code="unknown-adapter")


class Gatekeeper:
    """Makes callers of requests."""

    def __init__(self, registry: EmbeddedRegistry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._failures = Limits(settings.failures_per_minute)
        self._pushes = Limits(settings.pushes_per_minute)
        self._open: tuple[bytes, bool] = (b"", False)

    def caller(self, request: HTTPConnection, *, writes: bool) -> Caller:
        """A token that is not ours is nobody's for reading (clients of the Hub send theirs to whatever endpoint they are given)
        and refused for writing. Raises DeniedError, InvalidInputError."""
        if "token" in request.query_params or "access_token" in request.query_params:
            raise InvalidInputError(
                "a token does not belong into an address, where it is logged",
                code="token-in-url",
                hint="send `Authorization: Bearer …`, and revoke this one",
            )
        text = bearer(request)
        token = self._token(text, request) if text else None
        is_open = token is None and self.is_open
        if is_open:
            self._refuse_foreign_host(request)
        if token is None and not is_open and writes:
            raise UnauthenticatedError(
                "this is no token of this registry, or it has expired" if text else "this needs a token"
            )
        if token is not None and token.expires_at is not None:
            request.state.valid_until = datetime.fromisoformat(token.expires_at).timestamp()
        actor = f"{token.name} ({token.id})" if token else "local" if is_open else "anonymous"
        return self._caller(actor, token, is_open=is_open)

    def holder_of(self, token_id: str | None) -> Caller:
        """Whoever has the token that an address says it was made for; without one, the only user of a server that has none. Raises
        UnauthenticatedError if it was revoked or has expired."""
        token = self._registry.catalog.find_token(token_id) if token_id is not None else None
        if token_id is None and self.is_open:
            return self._caller("local", None, is_open=True)
        if token is None or not token.is_live(utc_now()):
            raise UnauthenticatedError
        return self._caller(f"{token.name} ({token.id})", token, is_open=False)

    def _caller(self, actor: str, token: Token | None, *, is_open: bool) -> Caller:
        return Caller(self._registry.acting(actor), actor, token, is_open, self._settings.anonymous_read)

    def count_push(self, caller: Caller) -> None:
        if (after := self._pushes.take(caller.actor, time.monotonic())) is not None:
            raise TooManyRequestsError(after)

    @property
    def is_open(self) -> bool:
        """Nobody beyond this machine can ask, and no token was ever made."""
        if not self._settings.is_loopback:
            return False
        catalog = self._registry.catalog
        if self._open[0] != catalog.generation():
            self._open = settled(catalog, lambda: not catalog.tokens())
        return self._open[1]

    def _token(self, text: str, request: HTTPConnection) -> Token | None:
        """Failures are counted by address, and only slow down further failures: nobody can lock out a right token."""
        presented = Presented.parse(text)
        if presented is None:
            return None
        token = self._registry.catalog.find_token(presented.id)
        if not presented.is_of(token):
            where = request.client.host if request.client else ""
            if (after := self._failures.take(where, time.monotonic())) is not None:
                raise TooManyRequestsError(after)
            return None
        return token if token is not None and token.is_live(utc_now()) else None

    def _refuse_foreign_host(self, request: HTTPConnection) -> None:
        """A page in the user's browser may have made its own name point here (DNS rebinding)."""
        name = host_of(request.headers.get("host", ""))
        if name not in LOOPBACK and name not in self._settings.hosts:
            raise MisdirectedRequestError(name)


def host_of(header: str) -> str:
    """The name or address in a Host header, without its port; a header that is none, as it is."""
    match = _HOST.fullmatch(header)
    return ((match["name"] or match["address"] or "") if match else header).lower()


class MisdirectedRequestError(DeniedError):
    http_status = 421
    default_code = "wrong-host"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"this server does not answer to the name {name!r:.80}",
            hint="without tokens it answers only to this machine (adapters serve --init makes one), "
            "else to the names in ADAPTERS_SERVER_HOSTS if there are any",
        )


class Requires:
    """A route's action, as a dependency: ``caller: Annotated[Caller, Depends(Requires(Action.PUSH))]``.

    If the path has ``ns`` and ``name``, it is about that adapter. ``somewhere`` is for routes that look at their objects
    themselves, one by one: whoever may do this anywhere gets in.
    """

    def __init__(self, action: Action, *, somewhere: bool = False) -> None:
        self.action = action
        self.somewhere = somewhere

    def __call__(self, request: Request) -> Caller:
        gatekeeper: Gatekeeper = request.app.state.gatekeeper
        caller = gatekeeper.caller(request, writes=self.action is not Action.READ)
        adapter = adapter_of(request.path_params)
        if not self.somewhere:
            caller.require(self.action, adapter)
        else:
            caller.require_anywhere(self.action)
        if self.action is not Action.READ:
            gatekeeper.count_push(caller)
        return caller


def adapter_of(path: dict[str, str]) -> AdapterName | None:
    if "ns" not in path or "name" not in path:
        return None
    return AdapterName.parse(f"{path['ns']}/{path['name']}")


def bearer(request: HTTPConnection) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" and text.strip() else None
