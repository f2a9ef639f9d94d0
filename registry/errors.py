"""Everything that can go wrong, in families by who has to act.

::

    RegistryError                 hint says what to do next                       HTTP  exit
    ├── InvalidInputError         what was handed in is broken                     400    3
    │   ├── InvalidValueError         a number, method, condition … that cannot be meant
    │   │   └── InvalidNameError          a name, alias, reference or digest outside the grammar
    │   ├── MalformedFileError        a file that cannot be what its name says
    │   │   ├── MalformedHeaderError      safetensors header
    │   │   ├── MalformedConfigError      adapter_config.json
    │   │   └── MalformedResultsError     evaluation results
    │   ├── UnsuitableDirectoryError  not an adapter, a link, a pickle, a Git-LFS pointer …
    │   ├── DefectiveAdapterError     findings: the tensors do not make an adapter
    │   └── ScoreFailedError          a command that was to score an adapter says no number
    ├── NotFoundError             nothing has that name                            404    4
    ├── ConflictError             somebody was faster, or the place is taken       409    5
    │   ├── AliasMovedError           compare-and-set lost
    │   ├── ChangedMeanwhileError     another writer came between the parts of a remote transaction
    │   └── OutputExistsError         a directory that is not empty
    ├── RejectedError             a rule or gate says no                           422    6
    │   ├── GateClosedError           scores that must hold before an alias moves do not
    │   └── FindingsError             every reason, each with its rule
    │       ├── IncompatibleError         an engine would not serve it as PEFT does
    │       ├── UnservableError           a version cannot be served on the base or by the engine that asks
    │       ├── MisfitError               the adapter does not fit its base
    │       ├── UnmergeableError          no merged weights do what base and adapters do
    │       ├── UncombinableError         there is no sum of these adapters
    │       └── UnextractableError        two models differ by more than an adapter
    ├── CorruptionError           stored bytes are not what was acknowledged       500    7
    │   ├── DigestMismatchError
    │   └── MissingBlobError
    ├── UnavailableError          disk full, read-only, locked; later may work     503    8
    └── DeniedError               who you are is not enough                    401/403    9

Exit 0 is success, 2 wrong usage, 1 a bug. Only ``cli/exits.py`` and ``api/problems.py`` catch ``RegistryError``.
Nobody reads messages: programs look at ``code`` (stable, lower-case, dashes) and the typed attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from registry.domain.finding import Finding
    from registry.domain.gate import Outcome


class RegistryError(Exception):
    """One clear sentence (``message``), a stable ``code`` for programs, and a ``hint``: what to do next. Where there are several
    reasons they are the ``findings``, and ``verdict`` is the sentence above them. ``path`` is one in the sentence that means
    something on this machine alone."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None, path: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.path = None if path is None else str(path)
        self.verdict: str | None = None
        self.findings: tuple[Finding, ...] = ()

    @property
    def message_elsewhere(self) -> str:
        """The sentence for whoever is on another machine."""
        if self.path is None:
            return self.message
        return self.message.replace(f" at {self.path}", "").replace(self.path, "of this server")

    def replace_words(self, words: Mapping[str, str]) -> None:
        """In all that is said: for whoever knows a place under another name than the reader."""
        for before, after in words.items():
            self.message = self.message.replace(before, after)
            self.hint = self.hint.replace(before, after) if self.hint else None
            self.verdict = self.verdict.replace(before, after) if self.verdict else None
            self.findings = tuple(replace(each, message=each.message.replace(before, after)) for each in self.findings)
        self.args = (self.message,)


class InvalidInputError(RegistryError):
    exit_code = 3
    http_status = 400
    default_code = "invalid-input"


class InvalidValueError(InvalidInputError):
    """``text`` is not what a ``kind`` is."""

    default_code = "invalid-value"

    def __init__(self, kind: str, text: str, expected: str, *, hint: str | None = None) -> None:
        super().__init__(f"{text!r:.120} is not {article(kind)}: expected {expected}", hint=hint)
        self.kind = kind
        self.text = text


class InvalidNameError(InvalidValueError):
    """``text`` does not follow the grammar of the names of that ``kind``."""

    default_code = "invalid-name"


class MalformedFileError(InvalidInputError):
    """``where`` (a path or a name for the bytes) holds something other than it should."""

    default_code = "malformed-file"

    def __init__(self, where: str, problem: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}", code=code, hint=hint)
        self.where = where
        self.problem = problem


class MalformedHeaderError(MalformedFileError):
    """A safetensors header that the strict reader does not accept; ``code`` says which rule it breaks."""

    default_code = "malformed-header"


class MalformedConfigError(MalformedFileError):
    """``adapter_config.json`` with a value that matters and cannot be used; ``field`` is its key, if one is to blame."""

    default_code = "malformed-config"

    def __init__(
        self, where: str, problem: str, *, field: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(where, problem, code=code, hint=hint)
        self.field = field


class MalformedResultsError(MalformedFileError):
    """Evaluation results that are cut off, of no known form, or without a score."""

    default_code = "malformed-results"


class UnsuitableDirectoryError(InvalidInputError):
    """A directory that cannot be pushed for what it contains or lacks; ``code`` says which."""

    default_code = "unsuitable-directory"


class DefectiveAdapterError(InvalidInputError):
    """The files can be read but do not make a sound adapter: every finding of severity ``error`` that was not allowed."""

    default_code = "defective-adapter"

    def __init__(self, where: str, findings: Sequence[Finding]) -> None:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"{where}: {first.message}{more}", code=first.rule if len(findings) == 1 else None, hint=first.fix
        )
        self.verdict = f"{where} does not make a sound adapter"
        self.findings = tuple(findings)


class ScoreFailedError(InvalidInputError):
    """``command`` was to print a score; ``problem`` is what it did."""

    default_code = "score-failed"

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(
            f"{command!r:.200} {problem}",
            hint="run it by hand on one adapter: it has to end with exit code 0, and a number as its last line",
        )
        self.command = command
        self.problem = problem


class NotFoundError(RegistryError):
    exit_code = 4
    http_status = 404
    default_code = "not-found"


class ConflictError(RegistryError):
    exit_code = 5
    http_status = 409
    default_code = "conflict"


class AliasMovedError(ConflictError):
    """The alias does not point where the caller expected; nothing was moved. ``None`` means it does not exist."""

    default_code = "alias-moved"

    def __init__(self, alias: str, *, expected: int | None, actual: int | None) -> None:
        super().__init__(
            f"alias {alias} points at {_version(actual)}, expected {_version(expected)}; it was not moved",
            hint="look at `adapters alias history`, then set it again with the --expect that is true now",
        )
        self.expected = expected
        self.actual = actual


class ChangedMeanwhileError(ConflictError):
    """Another writer came between the parts of a transaction with a catalog elsewhere. Nothing was done; the whole may be done
    again."""

    default_code = "changed-meanwhile"

    def __init__(self) -> None:
        super().__init__(
            "somebody else changed the registry meanwhile; nothing was done", hint="run the same command again"
        )


class OutputExistsError(ConflictError):
    default_code = "output-exists"


class RejectedError(RegistryError):
    exit_code = 6
    http_status = 422
    default_code = "rejected"


class GateClosedError(RejectedError):
    """``outcome`` has every condition; the sentence names those that do not hold, the first three in full."""

    default_code = "gate-closed"

    def __init__(self, outcome: Outcome) -> None:
        closed = [f"{check.condition}: {check.sentence}" for check in outcome.checks if not check.holds]
        more = f"; and {len(closed) - 3} more" if len(closed) > 3 else ""
        super().__init__(
            f"the gate is closed to {outcome.reference}: {'; '.join(closed[:3]) or 'it has no conditions'}{more}",
            hint="`adapters gate` shows every condition; nothing was moved",
        )
        self.outcome = outcome


class FindingsError(RejectedError):
    """``findings`` are every reason; the sentence is ``verdict`` and the first of them."""

    def __init__(self, verdict: str, findings: Sequence[Finding], *, hint: str | None = None) -> None:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"{verdict}: {first.message}{more}",
            code=first.rule if len({finding.rule for finding in findings}) == 1 else None,
            hint=hint or first.fix,
        )
        self.verdict = verdict
        self.findings = tuple(findings)


class IncompatibleError(FindingsError):
    """Every finding that stands against serving the adapter with the engine called ``engine``."""

    default_code = "incompatible"

    def __init__(self, where: str, engine: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"{where}: no faithful copy for {engine} exists", findings)


class UnservableError(FindingsError):
    """Every error that stands against serving a version on the base, or with the engine, that was asked for."""

    default_code = "not-servable"

    def __init__(self, reference: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"{reference} cannot be served as asked", findings)


class MisfitError(FindingsError):
    """The adapter is sound and does not fit its base: every finding of severity ``error`` that was not allowed."""

    default_code = "does-not-fit"

    def __init__(self, where: str, findings: Sequence[Finding]) -> None:
        first = findings[0]
        store = f"{first.fix}; or store it all the same: --allow {first.rule}"
        super().__init__(f"{where} does not fit its base", findings, hint=store)


class UnmergeableError(FindingsError):
    """Every reason why a merge is not done, known before a byte was written."""

    default_code = "not-mergeable"

    def __init__(self, what: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"{what} cannot be merged", findings)


class UncombinableError(FindingsError):
    """Every reason why there is no sum of these adapters."""

    default_code = "not-combinable"

    def __init__(self, what: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"{what} cannot be combined", findings)


class UnextractableError(FindingsError):
    """Every reason why the difference of two models is no adapter."""

    default_code = "not-extractable"

    def __init__(self, what: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"{what}: no adapter can be extracted", findings)


class CorruptionError(RegistryError):
    exit_code = 7
    http_status = 500
    default_code = "corruption"


class DigestMismatchError(CorruptionError):
    default_code = "digest-mismatch"

    def __init__(self, what: str, *, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(f"{what} has digest {actual}, expected {expected}", hint=hint)
        self.expected = expected
        self.actual = actual


class MissingBlobError(CorruptionError):
    default_code = "missing-blob"

    def __init__(self, digest: str, *, hint: str | None = "run `adapters doctor` to see which versions own it") -> None:
        super().__init__(f"blob {digest} is not in the store", hint=hint)
        self.digest = digest


class UnavailableError(RegistryError):
    exit_code = 8
    http_status = 503
    default_code = "unavailable"


class DeniedError(RegistryError):
    exit_code = 9
    http_status = 403
    default_code = "denied"


def article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"
