"""What a caller is told of what happened: an entry of the audit, without what they may not know of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.domain.access import Action
from registry.domain.names import AdapterName
from registry.domain.summary import Summary
from registry.operations.show import summary_document

if TYPE_CHECKING:
    from registry.api.callers import Caller
    from registry.domain.version import AuditEntry, Version


def may_see(caller: Caller, entry: AuditEntry) -> bool:
    adapter = AdapterName.parse(entry.adapter) if entry.adapter is not None else None
    return caller.may(Action.READ if adapter is not None else Action.ADMIN, adapter)


def told(caller: Caller, entry: AuditEntry) -> AuditEntry:
    """Other adapters that the facts name are left out if the caller may not read them, and what was measured of them. So is
    whatever cannot be read: one entry must not end everybody's reading."""
    facts = dict(entry.body)
    if entry.action == "rename" and not caller.may_read(facts.get("to")):
        facts["to"] = None
    if facts.get("gate") is not None:
        facts["gate"] = _gate(caller, facts["gate"])
    return replace(entry, body=facts)


def _gate(caller: Caller, gate: object) -> dict[str, Any] | None:
    if not isinstance(gate, dict) or not isinstance(gate.get("conditions"), dict):
        return None
    if gate.get("against") is None or caller.may_read(gate["against"]):
        return gate
    return {"against": None, "conditions": {condition: [] for condition in gate["conditions"]}}


def changed(caller: Caller, version: Version) -> dict[str, object]:
    """The answer to a change: whoever may make it and may not read is not told what else is there."""
    if caller.may(Action.READ, version.adapter):
        return summary_document(version)
    return {
        "adapter": str(version.adapter),
        "version": version.number,
        "digest": version.digest,
        "reference": version.reference,
    }


def known_by_name(caller: Caller, version: Version) -> Version:
    """Which version it is; and what it is, for those who may read it."""
    if caller.may(Action.READ, version.adapter):
        return version
    return replace(without_surroundings(caller, version), summary=Summary())


def without_surroundings(caller: Caller, version: Version) -> Version:
    """As the command line elsewhere gets it: what was pushed, and nothing that others added."""
    if caller.may(Action.READ, version.adapter):
        return version
    return replace(version, note=None, yanked=None, aliases=(), tags={}, score=None)
