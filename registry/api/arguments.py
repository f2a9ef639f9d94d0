"""What the questions to the catalog and the steps of a transaction take: each argument with its type and its bounds.

Nothing else gets in. What is known of the text of an argument is known here, not where it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_core import core_schema

from registry.api.texts import (
    BaseName,
    Condition,
    Filter,
    Metric,
    Note,
    Prose,
    RequestBody,
    Revision,
    Rule,
    Sequence,
    Source,
    Split,
    Suite,
    Task,
    VersionNumber,
    Why,
    Worded,
)
from registry.api.unreadable import sentence
from registry.domain import access, digest, names
from registry.domain.access import Action, NamespacePattern
from registry.domain.base_model import BaseModelId, StoredBase
from registry.domain.finding import Severity
from registry.domain.gate import MOST_CONDITIONS
from registry.domain.query import OPERATORS
from registry.domain.texts import Wording
from registry.errors import InvalidInputError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

#: Rows of an answer.
MOST_ROWS = 1000
_LONGEST_GATE = 256 << 10
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)


@dataclass(frozen=True)
class _Made:
    """A value that is made of a text. Its own error passes, so that the answer has its own code."""

    of: Callable[[str], Any]
    length: int = 300

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.str_schema(strict=True, max_length=self.length)
        return core_schema.no_info_after_validator_function(self.of, text)


def _time(text: str) -> str:
    """Tokens end by comparing texts, so there is one way to write a time."""
    if not _TIME.fullmatch(text):
        raise ValueError("expected a time in UTC such as 2030-01-31T12:00:00Z")
    datetime.fromisoformat(text)
    return text


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _one_of(known: Mapping[str, object]) -> AfterValidator:
    def checked(text: str) -> str:
        if text not in known:
            raise ValueError(f"expected one of {' '.join(known)}")
        return text

    return AfterValidator(checked)


def _reference_or_none(text: str) -> str:
    names.Reference.parse(text)
    return text


Adapter = Annotated[names.AdapterName, _Made(names.AdapterName.parse)]
Alias = Annotated[names.AliasName, _Made(names.AliasName)]
Reference = Annotated[names.Reference, _Made(names.Reference.parse)]
Digest = Annotated[digest.Digest, _Made(digest.Digest)]
ReferenceText = Annotated[str, StringConstraints(max_length=300), AfterValidator(_reference_or_none)]
Limit = Annotated[int, Field(ge=1, lt=1 << 63)]
Rank = Annotated[int, Field(ge=0, lt=1 << 53)]
TokenName = Annotated[access.TokenName, _Made(access.TokenName, names.MAX_LENGTH)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{10}$")]
Moment = Annotated[str, StringConstraints(max_length=40), AfterValidator(_moment)]


def _pairs(of: Any) -> Any:
    """JSON has lists only."""
    return Annotated[of, Field(strict=False)]


class Arguments(RequestBody):
    """Of a question or a step."""


Of = TypeVar("Of", bound=Arguments)


def read(kind: type[Of], given: Mapping[str, Any], *, of: str) -> Of:
    """Raises InvalidInputError, InvalidNameError."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInputError(sentence(found, place=f"the arguments of {of}")) from None


class Nothing(Arguments): ...


class AboutAdapter(Arguments):
    adapter: Adapter


class AboutVersion(Arguments):
    version: Reference


class AboutReference(Arguments):
    reference: Reference


class AboutDigest(Arguments):
    digest: Digest


class AboutToken(Arguments):
    token_id: str


class OfNamespace(Arguments):
    namespace: str


class MaybeOfNamespace(Arguments):
    namespace: str | None = None


class FindVersion(AboutAdapter):
    digest: Digest


class Versions(AboutAdapter):
    limit: Limit
    below: Sequence | None = None


class AliasHistory(AboutAdapter):
    alias: Alias


class Audit(Arguments):
    adapter: Adapter | None = None
    limit: Limit | None = None


class Events(Arguments):
    after: Sequence
    limit: Limit


class FindBase(Arguments):
    name: str
    revision: str | None = None


class After(Arguments):
    reference: ReferenceText
    keys: list[str | int | float | None] = Field([], max_length=2)


class Query(Arguments):
    """See :class:`registry.domain.query.VersionQuery`, which has the bounds; who may see what is not for the asker to say."""

    text: str | None = None
    base: str | None = None
    ranks: _pairs(tuple[Rank | None, Rank | None]) = (None, None)  # type: ignore[valid-type]
    targets: list[str] = Field([])
    peft_type: str | None = None
    task_type: str | None = None
    tags: list[_pairs(tuple[str, str | None])] = Field([])  # type: ignore[valid-type]
    alias: str | None = None
    metrics: list[_pairs(tuple[str, str | None, Annotated[str, _one_of(OPERATORS)], float])] = Field(  # type: ignore[valid-type]
        []
    )
    parent: Digest | None = None
    sort: str | None = None
    reverse: bool = False
    limit: Limit = 50
    after: After | None = None
    all_versions: bool = False
    namespace: str | None = None
    visible: None = None


class Search(Arguments):
    query: Query


#: What a gate says of a condition.
_JUDGED = Wording("verdict of a gate", 0, 2000)


class Gate(Arguments):
    """What :meth:`registry.domain.gate.Outcome.facts` makes, and nothing else: every reader of the audit reads it."""

    against: ReferenceText | None
    conditions: dict[
        Condition,
        Annotated[list[Annotated[str, Worded(_JUDGED)]], Field(max_length=1000)],
    ] = Field(max_length=MOST_CONDITIONS)


def _short(gate: Gate) -> Gate:
    if len(json.dumps(gate.conditions)) > _LONGEST_GATE:
        raise ValueError(f"it is longer than {_LONGEST_GATE:,} bytes")
    return gate


class MoveAlias(AboutAdapter):
    alias: Alias
    to: VersionNumber | None
    expected: VersionNumber | None = None
    gate: Annotated[Gate, AfterValidator(_short)] | None = None


class SetTags(AboutVersion):
    tags: dict[str, str]


class RemoveTags(AboutVersion):
    keys: list[str]


class AboutVersionWhy(AboutVersion):
    reason: Why


class AboutAdapterWhy(AboutAdapter):
    reason: Why


class Measurement(Arguments):
    """See :class:`registry.domain.evaluation.Evaluation`."""

    metric: Metric
    value: float
    task: Task | None = None
    suite: Suite | None = None
    split: Split | None = None
    filter: Filter | None = None
    stderr: float | None = None
    n: int | None = None
    higher_is_better: bool | None = None
    source: Source | None = None
    at: Moment | None = None


class AddEvaluations(AboutVersion):
    evaluations: list[Measurement]
    raw: Digest | None = None


class Noticed(Arguments):
    """See :class:`registry.domain.finding.Finding`."""

    rule: Rule
    severity: Annotated[Severity, Field(strict=False)]
    message: Prose
    where: Prose | None = None
    fix: Prose | None = None


class AddVersion(AboutAdapter):
    manifest: str
    note: Note | None = None
    fingerprint: Digest | None = None
    weights_fingerprint: Digest | None = None
    findings: list[Noticed] = Field([], max_length=1000)


class BaseId(Arguments):
    id: BaseName
    revision: Revision | None = None
    raw: BaseName | None = None
    fingerprint: Digest | None = None


class KnownBase(Arguments):
    id: BaseId
    digest: Digest

    def stored(self) -> StoredBase:
        return StoredBase(BaseModelId(**self.id.model_dump()), self.digest)


class AddBase(Arguments):
    base: KnownBase


class AliasBase(Arguments):
    name: BaseName
    canonical: BaseName | None


class Visibility(AboutAdapter):
    private: bool


class Rename(AboutAdapter):
    to: Adapter


class NewToken(Arguments):
    """See :class:`registry.domain.access.Token`."""

    id: TokenId
    name: TokenName
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    actions: list[Annotated[Action, Field(strict=False)]] = Field(min_length=1, max_length=len(Action))
    namespaces: list[Annotated[NamespacePattern, _Made(NamespacePattern)]] = Field(
        min_length=1, max_length=access.MOST_PATTERNS
    )
    created_at: Annotated[str, StringConstraints(max_length=40)] = ""
    expires_at: Annotated[str, AfterValidator(_time)] | None = None
    revoked_at: None = None


class AddToken(Arguments):
    token: NewToken
