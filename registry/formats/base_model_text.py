"""Which base model an adapter means: from ``base_model_name_or_path``, a text that anybody could write, to an identity.

A trainer writes whatever it was given: a repository, a directory of its machine, a snapshot inside the Hub's cache, a
quantised copy, nothing. The identity is a repository of the Hub under its present name, or None where nobody can know;
the text itself is always kept. A name that merely looks like a family's proves nothing: only ``base_aliases.toml``
makes two names one base.

The laws: any text gives an answer, never an error; an identity resolves to itself; upper and lower case make no
difference between names of the table.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from registry.domain.base_model import BaseModelId
from registry.domain.finding import Finding, Severity

WHERE = "base_model_name_or_path"

#: What templates, forms and ``str(None)`` leave in the field, in lower case.
PLACEHOLDERS = frozenset(
    [
        "base",
        "base-model",
        "base_model",
        "base_model_name",
        "base_model_name_or_path",
        "huggingface_model_id",
        "model",
        "model_id",
        "model_name",
        "model_name_or_path",
        "n/a",
        "na",
        "nan",
        "none",
        "null",
        "path/to/base",
        "path/to/base_model",
        "path/to/model",
        "tbd",
        "todo",
        "undefined",
        "unknown",
        "your-base-model",
        "your-model",
        "your_base_model",
        "your_model",
        "your-username/your-model",
        "username/model",
        "org/model",
    ]
)
#: Findings of :func:`resolve_base` about a text that names no repository.
NAMELESS = frozenset(["base-unknown", "base-is-url", "base-is-local-path", "base-not-a-repository"])
_TEMPLATE = re.compile(r"[<\[{$].*", re.DOTALL)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:.*", re.DOTALL)  # two characters at least: one is a drive letter
_SNAPSHOT = re.compile(
    r"(?:.*[/\\])?models--(?P<repository>[\w.-]+)[/\\]snapshots[/\\](?P<sha>[0-9a-f]{40})[/\\]?", re.ASCII | re.DOTALL
)
_LOCAL = re.compile(
    r"[/\\~].*"  # absolute, UNC, home
    r"|\.{1,2}(?:[/\\].*)?"  # relative
    r"|[A-Za-z]:.*"  # drive letter
    r"|.*\\.*|.*/.*/.*|.*/"  # a separator too many for a repository
    r"|(?:.*/)?checkpoint-[0-9]+",  # the Trainer's directories
    re.DOTALL,
)
#: huggingface_hub's rule, ``utils/_validators.py``; ``--`` and ``..`` and a last ``.git`` are checked apart.
_REPOSITORY = re.compile(r"(?:\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)
_PINNED = re.compile(r"[0-9a-f]{40}")


def resolve_base(raw: str | None, revision: str | None) -> tuple[BaseModelId, tuple[Finding, ...]]:
    """The base that ``raw`` means, at ``revision`` (the config's; a snapshot path's own commit goes before it).

    Findings: ``base-unknown``, ``base-is-url``, ``base-is-local-path``, ``base-not-a-repository`` (warnings: no id),
    ``base-alias``, ``base-revision-not-pinned``, ``base-revision-of-copy`` (infos).
    """
    text = (raw or "").strip()
    if not text or text.lower() in PLACEHOLDERS or _TEMPLATE.fullmatch(text):
        return _unknown(raw, revision, "base-unknown", "names no base model")
    named = text
    if snapshot := _SNAPSHOT.fullmatch(text):
        named, revision = snapshot["repository"].replace("--", "/"), snapshot["sha"]
    elif _URL.fullmatch(text):
        return _unknown(raw, revision, "base-is-url", "is an address, not a repository")
    elif _LOCAL.fullmatch(text):
        return _unknown(raw, revision, "base-is-local-path", "is a path on the machine that trained it")
    if not is_repository(named):
        return _unknown(raw, revision, "base-not-a-repository", "is not the name of a repository")
    canonical = canonical_name(named)
    findings = []
    if canonical != text:
        findings.append(_info("base-alias", f"{raw!r:.200} is {canonical}", WHERE))
    if revision is not None:
        findings.extend(_about_revision(revision, named, canonical))
    return BaseModelId(canonical, revision, raw), tuple(findings)


def is_repository(text: str) -> bool:
    """Whether ``text`` could be a repository of the Hub: ``name`` or ``owner/name``."""
    return (
        _REPOSITORY.fullmatch(text) is not None and "--" not in text and ".." not in text and not text.endswith(".git")
    )


def canonical_name(repository: str) -> str:
    """The present name of the base that ``repository`` is or copies; its own if the table knows no other."""
    aliases, owners = _tables()
    owner, slash, name = repository.partition("/")
    moved = owners.get(owner.lower()) if slash else None
    present = f"{moved}/{name}" if moved else repository
    return aliases.get(present.lower(), present)


def _unknown(raw: str | None, revision: str | None, rule: str, problem: str) -> tuple[BaseModelId, tuple[Finding, ...]]:
    found = f"the base {raw!r:.200} {problem}" if raw else "the config names no base model"
    warning = Finding(
        rule,
        Severity.WARNING,
        found,
        WHERE,
        "write the base's repository, such as owner/name, into adapter_config.json",
    )
    return BaseModelId(None, revision, raw), (warning,)


def _about_revision(revision: str, named: str, canonical: str) -> list[Finding]:
    found = []
    if not _PINNED.fullmatch(revision):
        found.append(
            _info(
                "base-revision-not-pinned",
                f"the base's revision {revision!r:.80} may move; a commit would not",
                "revision",
            )
        )
    if is_copy(named):
        message = f"the base's revision {revision!r:.80} is one of {named}, not of {canonical}"
        found.append(_info("base-revision-of-copy", message, "revision"))
    return found


def is_copy(repository: str) -> bool:
    """Whether the canonical name is another repository, and not this one after its move; only Unsloth's are copies."""
    owner = "unsloth/"
    return repository.lower().startswith(owner) and canonical_name(repository).lower() != repository.lower()


def _info(rule: str, message: str, where: str) -> Finding:
    return Finding(rule, Severity.INFO, message, where)


@cache
def _tables() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Lower-case repository → present name (present names included), and lower-case owner → present owner."""
    data = tomllib.loads(files("registry.formats").joinpath("base_aliases.toml").read_text(encoding="utf-8"))
    unsloth = data["unsloth"]
    copies: dict[str, str] = dict(unsloth["renamed"])
    copies |= {name: f"{owner}/{name}" for owner, names in unsloth["copies"].items() for name in names}
    copies |= {name: f"unsloth/{name}" for name in unsloth["converted"]}
    aliases = {
        f"unsloth/{name}{suffix}": original
        for name, original in copies.items()
        for suffix in ("", *unsloth["quantised_suffixes"])
    }
    aliases |= data["moved"]
    aliases |= {name: f"{owner}/{name}" for owner, names in data["ownerless"].items() for name in names}
    aliases |= {present: present for present in list(aliases.values())}
    owners = data["owners"] | {present: present for present in data["owners"].values()}
    return (
        MappingProxyType({name.lower(): present for name, present in aliases.items()}),
        MappingProxyType({name.lower(): present for name, present in owners.items()}),
    )
