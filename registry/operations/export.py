"""An adapter becomes a copy that an engine serves as PEFT serves the original, or nothing appears.

1. Read the adapter: a directory, or a version fetched beside the output with every byte verified. Damage is refused.
2. Work out what has to change for this engine, and ask all rules about the result before anything is computed.
3. Copies of the base's weights are left away only if they are the base's own, number for number.
4. Write the copy: weights through the workshop, config, and the other files that are served.
5. Read it back and ask again; the delta of every target is the one it was to rounding, every other tensor byte for byte.
6. Only then is it renamed into place.

Tensors are the workshop's business: :mod:`registry.transforms.export`, handed in by whoever calls, since it needs torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.checks.profile import Profile
from registry.checks.repair import MENDED, Repair, plan_repair
from registry.checks.repair_words import Change
from registry.checks.rule import Subject
from registry.checks.serving_words import export as itself
from registry.disk import new_file, write_new
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import FileEntry, FileRole
from registry.domain.names import Reference
from registry.errors import DefectiveAdapterError, IncompatibleError, UnavailableError
from registry.formats.adapter_config import MAX_BYTES, AdapterConfig, parse_adapter_config
from registry.formats.adapter_directory import CONFIG, WEIGHTS
from registry.operations.base_copies import require_own
from registry.operations.bases import CheckedBase, Shelf, base_called, is_path
from registry.operations.bounded_regex import slow_matcher
from registry.operations.check import CheckedAdapter, adapter_in, check, require_adapter
from registry.operations.describe import describe
from registry.operations.directory import open_regular
from registry.operations.equal_copy import Workshop, proven
from registry.operations.fetch import fetch
from registry.operations.manifests import manifest_of
from registry.operations.placing import placed, scratch
from registry.variants.patterns import Patterns
from registry.variants.table import read_anatomy


@dataclass(frozen=True, slots=True)
class Exported:
    """``largest_error`` of any target's delta, relative to its norm; 0 where it is exact. ``findings`` are what the rules
    still say about the copy, none of them an error."""

    subject: str
    profile: str
    directory: str
    changes: tuple[Change, ...]
    largest_error: float
    files: tuple[FileEntry, ...]
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, object]:
        """``export --json``. Keys are only ever added."""
        return {
            "subject": self.subject,
            "profile": self.profile,
            "directory": self.directory,
            "changes": [change.document() for change in self.changes],
            "largest_error": self.largest_error,
            "files": [{"path": entry.path, "digest": entry.digest, "size": entry.size} for entry in self.files],
            "findings": [finding.document() for finding in self.findings],
        }


def export(
    subject: Path | Reference,
    into: Path,
    *,
    profile: Profile,
    base: str | None = None,
    blobs: BlobStore,
    catalog: Catalog,
    workshop: Callable[[], Workshop],
) -> Exported:
    """``base`` is a checkpoint's directory, or ``ID[@REVISION]`` to write into the config. ``workshop`` is called once it is
    known that a copy can exist.

    Raises OutputExistsError, InvalidInputError, NotFoundError, CorruptionError, UnavailableError, and RejectedError where no
    faithful copy exists; then nothing is written.
    """
    shelf = Shelf(blobs, catalog)
    known = base_called(base, shelf) if base is not None else None
    if base is not None and known is not None and known.problem is not None:
        if is_path(base):
            raise UnavailableError(known.problem.message, code=known.problem.rule, hint=known.problem.fix)
        known = None  # the name is written, and nothing more is known
    name = str(subject)
    with scratch(into) as work, placed(into) as copy:
        stated = base if base is not None and not is_path(base) else None
        directory, adapter = _read(subject, work, stated, known, blobs, catalog)  # 1
        adapter = replace(adapter, name=name)
        repair = _planned(adapter, known, profile)  # 2
        tools = workshop()
        if repair.dropped:
            require_own(repair.dropped, directory / WEIGHTS, adapter, known, tools.same_numbers)  # 3
        widened = tools.rewrite(directory / WEIGHTS, repair, copy / WEIGHTS)  # 4
        write_new(json.dumps(repair.config, indent=2, ensure_ascii=False).encode() + b"\n", copy / CONFIG)
        for entry in adapter.manifest.files:
            if entry.role is FileRole.SERVED and entry.path not in (CONFIG, WEIGHTS):
                _copy(entry, directory, copy)
        written = replace(adapter_in(copy), name=name)  # 5
        findings = _served(written, known, profile)
        largest = proven(adapter, written, repair, directory, copy, tools)
    return Exported(  # 6
        subject=name,
        profile=profile.name,
        directory=str(into),
        changes=(*repair.changes, *((_WIDENED,) if widened else ())),
        largest_error=largest,
        files=written.manifest.files,
        findings=findings,
    )


_WIDENED = Change("stored-as-f32", "the factors are stored as F32, since their type cannot hold the products exactly")


def _read(
    subject: Path | Reference,
    work: Path,
    stated: str | None,
    known: CheckedBase | None,
    blobs: BlobStore,
    catalog: Catalog,
) -> tuple[Path, CheckedAdapter]:
    """Where the files lie, and what they are; the base is the stated one, else the one recorded, else that of the config."""
    if isinstance(subject, Path):
        directory, recorded = subject, None
    else:
        directory = work / "source"
        require_adapter(str(subject), manifest_of(catalog.resolve(subject).digest, blobs))
        recorded = fetch(subject, directory, blobs=blobs, catalog=catalog, served_only=True)[1].base_model
    package = describe(directory, base=stated)
    damage = [one for one in package.findings if one.severity is Severity.ERROR and one.rule not in MENDED]
    if damage:
        raise DefectiveAdapterError(str(subject), damage)
    manifest = package.manifest
    if stated is None and recorded is not None:
        manifest = replace(manifest, base_model=recorded)
    elif stated is None and known is not None and manifest.base_model.id is None:
        manifest = replace(manifest, base_model=replace(known.id, raw=manifest.base_model.raw))
    with open_regular(directory / CONFIG) as file:
        config = parse_adapter_config(file.read(MAX_BYTES + 1), where=str(directory / CONFIG))
    return directory, CheckedAdapter(str(subject), manifest, config, package.findings)


def _planned(adapter: CheckedAdapter, base: CheckedBase | None, profile: Profile) -> Repair:
    spec = base.spec if base is not None else None
    repair = plan_repair(Subject(adapter.manifest, adapter.config, spec, profile))
    if repair.problems:
        raise IncompatibleError(adapter.name, profile.title, repair.problems)
    config = AdapterConfig(repair.config, adapter.config.where)
    tensors = tuple(row.spec for row in repair.tensors)
    reading = read_anatomy(config, tensors, Patterns(slow_matcher()))
    manifest = replace(
        adapter.manifest,
        tensors=tensors,
        targets=reading.targets,
        extra_modules=reading.extra_modules,
        absent_targets=reading.absent_targets,
    )
    _served(CheckedAdapter(adapter.name, manifest, config, reading.findings), base, profile)
    return repair


def _served(adapter: CheckedAdapter, base: CheckedBase | None, profile: Profile) -> tuple[Finding, ...]:
    """What the rules say, if none of it is an error."""
    findings = check(adapter, base, profile).findings
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        ways = [
            one if one.fix is None or not one.fix.startswith(itself(profile)) else replace(one, fix=profile.way_out)
            for one in errors
        ]  # what this could not mend does not point back at it
        raise IncompatibleError(adapter.name, profile.title, ways)
    return findings


def _copy(entry: FileEntry, directory: Path, into: Path) -> None:
    path = into / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(directory / entry.path) as source, new_file(path) as target:
        shutil.copyfileobj(source, target)
