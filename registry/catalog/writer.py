"""The one open transaction: each change is validated against what is there, made an event, and applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlmodel import Session, col, select

from registry.catalog import adapters, bases, commits, tokens
from registry.catalog import apply as change
from registry.catalog.clashes import require_no_adapter, require_no_clash
from registry.catalog.events import ORIGIN, Event, segment_bytes
from registry.catalog.protocol import ANYTHING, Anything
from registry.catalog.resolve import aliases_of, evaluations_of, find_version, resolve, version_of
from registry.catalog.tables import AdapterRow, AliasRow, AuditRow, BaseRow, BlobRow, CommitBlobRow, EvaluationRow
from registry.domain import texts
from registry.domain.access import Action, Token
from registry.domain.base_model import StoredBase
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation, checked_evaluations
from registry.domain.finding import Finding
from registry.domain.manifest import Manifest
from registry.domain.names import AdapterName, AliasName, Namespace, Reference, Word, require_free, require_no_main
from registry.domain.tags import checked_keys, checked_tags
from registry.domain.version import AliasMove, Version
from registry.errors import AliasMovedError, ConflictError, InvalidInputError, NotFoundError


def head(session: Session) -> tuple[int, str]:
    """The number and hash of the last audit entry, to which the next one is chained."""
    last = session.exec(select(AuditRow).order_by(col(AuditRow.sequence).desc()).limit(1)).one_or_none()
    return (last.sequence, last.hash) if last else (0, str(ORIGIN))


class SqlWriter:
    """See :class:`registry.catalog.protocol.CatalogWriter`."""

    def __init__(self, session: Session, *, actor: str, now: Callable[[], str]) -> None:
        self._session = session
        self._actor = actor
        self._now = now
        self._head = head(session)
        self.first = self._head[0] + 1
        self._bodies: list[str] = []

    @property
    def segment(self) -> bytes:
        """The events of this transaction so far, as the journal keeps them; empty if nothing changed."""
        return segment_bytes(self._bodies)

    @property
    def last_entry(self) -> tuple[int, str] | None:
        """The number and hash of this transaction's last event so far; None if nothing changed."""
        return self._head if self._bodies else None

    def resolve(self, reference: Reference) -> Version:
        return resolve(self._session, reference)

    def add_version(
        self,
        adapter: AdapterName,
        manifest: Manifest,
        *,
        note: str | None = None,
        fingerprint: Digest | None = None,
        weights_fingerprint: Digest | None = None,
        findings: Sequence[Finding] = (),
    ) -> tuple[Version, bool]:
        known = find_version(self._session, adapter, manifest.digest)
        if known is not None:
            return version_of(self._session, known), False
        row = self._session.get(AdapterRow, adapter.key)
        shown = self._shown(adapter)
        number = row.next_number if row else 1
        if note is not None:
            texts.NOTE.checked(note)
        facts = {
            "version": number,
            "digest": manifest.digest,
            "note": note,
            "fingerprint": fingerprint,
            **({"weights_fingerprint": weights_fingerprint} if weights_fingerprint is not None else {}),
            "findings": [finding.document() for finding in findings],
        }
        self._record(change.PUBLISH, shown, facts, manifest)
        return self.resolve(Reference(shown, number=number)), True

    def aliases(self, adapter: AdapterName) -> dict[str, int]:
        return aliases_of(self._session, adapter)

    def evaluations(self, version: Version) -> list[Evaluation]:
        return evaluations_of(self._session, version)

    def move_alias(
        self,
        adapter: AdapterName,
        alias: AliasName,
        to: int | None,
        *,
        expected: int | Anything | None = ANYTHING,
        gate: Mapping[str, object] | None = None,
    ) -> AliasMove | None:
        row = self._session.get(AliasRow, (adapter.key, alias.key))
        actual = row.number if row else None
        if expected is not ANYTHING and expected != actual:
            raise AliasMovedError(f"{adapter}:{alias}", expected=expected, actual=actual)
        if to is None and actual is None and expected is ANYTHING:
            raise NotFoundError(f"{adapter} has no alias {alias}", code="unknown-alias")
        if to is not None:
            self.resolve(Reference(adapter, number=to))
        if to == actual:
            return None
        if actual is None:
            require_no_main(alias)
            require_no_adapter(self._session, adapter, alias)
        facts = {"alias": str(alias), "before": actual, "after": to, **({"gate": gate} if gate is not None else {})}
        event = self._record(change.MOVE_ALIAS, adapter, facts)
        return AliasMove(str(alias), actual, to, event.at, event.actor)

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        changed = {key: value for key, value in checked_tags(tags).items() if version.tags.get(key) != value}
        if changed:
            self._record(change.SET_TAGS, version.adapter, {"version": version.number, "tags": changed})

    def remove_tags(self, version: Version, keys: Sequence[str]) -> None:
        absent = [key for key in checked_keys(keys) if key not in version.tags]
        if absent:
            raise NotFoundError(f"{version.reference} has no tag {absent[0]}", code="unknown-tag")
        self._record(change.REMOVE_TAGS, version.adapter, {"version": version.number, "keys": list(keys)})

    def yank(self, version: Version, reason: str) -> None:
        texts.REASON.checked(reason)
        if version.yanked != reason:
            self._record(change.YANK, version.adapter, {"version": version.number, "reason": reason})

    def unyank(self, version: Version) -> None:
        if version.yanked is not None:
            self._record(change.UNYANK, version.adapter, {"version": version.number})

    def delete(self, version: Version, reason: str) -> None:
        texts.REASON.checked(reason)
        if version.aliases:
            raise ConflictError(
                f"{version.reference} cannot be deleted: alias {version.aliases[0]} points at it",
                code="version-in-use",
                hint="move or remove the alias first",
            )
        self._record(change.DELETE, version.adapter, {"version": version.number, "reason": reason})

    def add_evaluations(self, version: Version, evaluations: Sequence[Evaluation], *, raw: Digest | None = None) -> int:
        row = change.version_row(self._session, version.adapter.key, version.number)
        if row is None or not checked_evaluations(evaluations):
            return 0
        if raw is not None and self._session.get(BlobRow, (raw, row.id)) is not None:
            known = {
                (old.suite, old.task, old.metric, old.filter, old.split, old.value)
                for old in self._session.exec(select(EvaluationRow).where(EvaluationRow.version_id == row.id))
            }
            evaluations = [
                new
                for new in evaluations
                if (new.suite, new.task, new.metric, new.filter, new.split, new.value) not in known
            ]
            if not evaluations:
                return 0
        at = self._now()
        documents = [{**evaluation.document(), "at": evaluation.at or at} for evaluation in evaluations]
        self._record(
            change.EVALUATE, version.adapter, {"version": version.number, "raw": raw, "evaluations": documents}
        )
        return len(documents)

    def add_base(self, base: StoredBase) -> bool:
        texts.BASE_NAME.checked(base.id.id or "")
        texts.REVISION.checked(base.id.revision or "")
        known = bases.find_base(self._session, base.id.id or "", base.id.revision or "")
        if known is not None and known.digest == base.digest:
            return False
        facts = {"id": base.id.id, "revision": base.id.revision, "digest": base.digest}
        self._record(bases.ADD_BASE, None, facts)
        return True

    def alias_base(self, name: str, canonical: str | None) -> bool:
        known = bases.base_aliases(self._session)
        if canonical is not None:
            texts.BASE_NAME.checked(name)
            texts.BASE_NAME.checked(canonical)
            canonical = known.canonical(canonical)
            if canonical.lower() == name.lower() or name.lower() in {each.lower() for each in known.names.values()}:
                raise ConflictError(
                    f"{name} has other names itself, so it cannot become one of {canonical}",
                    code="base-alias-circle",
                    hint="look at `adapters base list`, and alias the other way round",
                )
        if known.canonical(name) == (canonical or name):
            return False
        self._record(bases.ALIAS_BASE, None, {"name": name, "canonical": canonical})
        return True

    def create_adapter(self, adapter: AdapterName, *, private: bool) -> bool:
        if adapters.find_adapter(self._session, adapter) is not None:
            return False
        self._record(adapters.CREATE, self._shown(adapter), {"private": private})
        return True

    def set_private(self, adapter: AdapterName, *, private: bool) -> None:
        known = adapters.find_adapter(self._session, adapter)
        if known is None:
            self.resolve(Reference(adapter))  # raises what tells the nearest name
        elif known.private != private:
            self._record(adapters.SET_PRIVATE, known.name, {"private": private})

    def remove_adapter(self, adapter: AdapterName, reason: str) -> None:
        texts.REASON.checked(reason)
        known = adapters.find_adapter(self._session, adapter)
        if known is None:
            raise NotFoundError(f"there is no adapter {adapter}", code="unknown-adapter")
        for alias in self.aliases(adapter):
            self.move_alias(adapter, AliasName(alias), None)
        for number in change.live_numbers(self._session, adapter.key):
            self.delete(self.resolve(Reference(known.name, number=number)), reason)
        self._record(adapters.REMOVE, known.name, {"reason": reason})

    def rename_adapter(self, adapter: AdapterName, to: AdapterName) -> None:
        known = adapters.find_adapter(self._session, adapter)
        if known is None:
            raise NotFoundError(f"there is no adapter {adapter}", code="unknown-adapter")
        require_free(to.namespace)
        if self._session.get(AdapterRow, to.key) is not None:
            raise ConflictError(
                f"{to} is or was the name of another adapter",
                code="name-taken",
                hint="its version numbers are never used again: choose another name",
            )
        require_no_clash(self._session, to, aliases=self.aliases(adapter))
        self._record(adapters.RENAME, known.name, {"to": str(to)})

    def add_commit(
        self,
        adapter: AdapterName,
        *,
        commit: str,
        parent: str | None,
        tree: Digest,
        files: Sequence[Digest],
        title: str,
        number: int,
        draft: bool,
    ) -> None:
        facts = {
            "commit": commit,
            "parent": parent,
            "tree": tree,
            "files": sorted(set(files)),
            "title": title,
            "version": number,
            "draft": draft,
        }
        self._record(commits.COMMIT, self._shown(adapter), facts)

    def drop_drafts(self, before: str) -> None:
        for adapter, ids in commits.dead_drafts(self._session, before).items():
            self._record(commits.DROP_DRAFTS, self._shown(adapter), {"commits": ids})

    def add_token(self, token: Token) -> Token:
        if Action.ADMIN in token.actions and tuple(token.patterns) != ("*",):
            raise InvalidInputError(
                "an administrator's token is one everywhere, and cannot be held to part of the adapters",
                code="admin-everywhere",
                hint="leave --scope away, or give it another role: owner may do everything with the adapters in its scope",
            )
        if tokens.find_token(self._session, token.id) is not None:
            raise ConflictError(
                f"there is a token {token.id} already",
                code="token-exists",
                hint="make another one: adapters token create",
            )
        facts = {
            "id": token.id,
            "name": token.name,
            "hash": token.hash,
            "actions": sorted(token.actions),
            "patterns": list(token.patterns),
            "expires_at": token.expires_at,
        }
        event = self._record(tokens.ADD_TOKEN, None, facts)
        return replace(token, created_at=event.at)

    def revoke_token(self, token_id: str) -> Token:
        token = tokens.find_token(self._session, token_id)
        if token is None:
            raise NotFoundError(f"there is no token {token_id}", code="unknown-token", hint="adapters token list")
        if token.revoked_at is not None:
            return token
        event = self._record(tokens.REVOKE_TOKEN, None, {"id": token_id})
        return replace(token, revoked_at=event.at)

    def note_collection(self, digests: Sequence[Digest]) -> None:
        self._record(change.COLLECT, None, {"blobs": list(digests)})

    def unreferenced(self, digests: Sequence[Digest]) -> list[Digest]:
        used = set(self._session.exec(select(BlobRow.digest).where(col(BlobRow.digest).in_(digests))))
        used |= set(self._session.exec(select(BaseRow.digest).where(col(BaseRow.digest).in_(digests))))
        used |= set(self._session.exec(select(CommitBlobRow.digest).where(col(CommitBlobRow.digest).in_(digests))))
        return [digest for digest in digests if digest not in used]

    def _shown(self, adapter: AdapterName) -> AdapterName:
        """As it was first written. Raises InvalidNameError and ConflictError for a new one where none may be."""
        row = self._session.get(AdapterRow, adapter.key)
        if row is None:
            require_free(adapter.namespace)
        if row is None or row.removed:
            require_no_clash(self._session, adapter)
        return AdapterName(Namespace(row.namespace), Word(row.name)) if row else adapter

    def _record(
        self, action: str, adapter: AdapterName | None, facts: Mapping[str, Any], manifest: Manifest | None = None
    ) -> Event:
        sequence, previous = self._head
        event = Event(
            sequence + 1, action, str(adapter) if adapter else None, self._now(), self._actor, previous, dict(facts)
        )
        change.apply(self._session, event, manifest)
        self._head = (event.sequence, event.hash)
        self._bodies.append(event.body)
        return event
