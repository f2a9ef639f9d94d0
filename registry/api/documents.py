"""Look-ups that were made already, kept by name as long as nothing happened to the adapter: those that found something encoded, and
those that were refused after a look at many versions.

The server has several addresses, as its clients see it; a document is kept without any.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from registry.errors import RejectedError
from registry.operations.resolve import Wanted, resolved

if TYPE_CHECKING:
    from registry.api.freshness import Freshness, Moment
    from registry.connect import EmbeddedRegistry
    from registry.domain.names import AdapterName

_KEPT = 20_000
_KEPT_BYTES = 64 << 20
#: Of what is kept, beside its text.
_BESIDE = 1024
#: Within a text of JSON quotes are escaped, so this is nothing that somebody wrote.
_URL = '"url":"/'

_Key = tuple[str, Wanted]


@dataclass(frozen=True, slots=True)
class Document:
    text: str

    def at(self, address: str) -> str:
        """JSON with the addresses of the files at the server's own, which has no slash at the end."""
        return self.text.replace(_URL, f'"url":{json.dumps(address)[:-1]}/')


@dataclass(frozen=True, slots=True)
class _Kept:
    begun: Moment
    answer: Document | RejectedError
    size: int


class Documents:
    """For all callers: whether one may read an adapter is for the route to say, before it asks."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._answers: OrderedDict[_Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._public: OrderedDict[str, tuple[Moment, bool]] = OrderedDict()

    def catch_up(self) -> None:
        """Before a request is answered."""
        if not self._freshness.is_current():
            self._freshness.catch_up()

    def is_public(self, registry: EmbeddedRegistry, adapter: AdapterName) -> bool:
        """Whether it is there, and not private."""
        known = self._public.get(adapter.key)
        if known is not None and self._freshness.holds(known[0], adapter.key):
            return known[1]
        begun = self._freshness.now
        found = registry.catalog.find_adapter(adapter)
        public = found is not None and not found.private
        with self._lock:
            self._public[adapter.key] = (begun, public)
            if len(self._public) > _KEPT:
                self._public.popitem(last=False)
        return public

    def answer(self, registry: EmbeddedRegistry, adapter: AdapterName, wanted: Wanted) -> Document | RejectedError:
        """The error is one to be told, not raised: others are told the same. Raises what
        :func:`registry.operations.resolve.resolved` raises otherwise."""
        key = (adapter.key, wanted)
        known = self._answers.get(key)
        if known is not None and self._freshness.holds(known.begun, adapter.key):
            return known.answer
        begun = self._freshness.now
        try:
            found = resolved(adapter, wanted, blobs=registry.blobs, catalog=registry.catalog)
        except RejectedError as error:
            refusal = error.with_traceback(None)
            self._keep(key, _Kept(begun, refusal, _BESIDE + _length(refusal)))
            return refusal
        document = Document(json.dumps(found.document(""), separators=(",", ":")))
        self._keep(key, _Kept(begun, document, _BESIDE + len(document.text)))
        return document

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._lock:
            before = self._answers.pop(key, None)
            self._bytes += kept.size - (before.size if before else 0)
            self._answers[key] = kept
            while self._bytes > _KEPT_BYTES:
                _, oldest = self._answers.popitem(last=False)
                self._bytes -= oldest.size


def _length(error: RejectedError) -> int:
    findings = error.findings
    return len(error.message) + sum(len(str(finding.document())) for finding in findings)
