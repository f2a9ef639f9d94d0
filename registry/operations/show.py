"""Everything recorded about one version, as a value and as the stable JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from registry.blobs.protocol import BlobStore
from registry.catalog.protocol import Catalog
from registry.domain.evaluation import Evaluation
from registry.domain.manifest import Manifest
from registry.domain.names import Reference
from registry.domain.query import MAX_PAGE, VersionQuery, Visible
from registry.domain.version import Version
from registry.operations.manifests import manifest_of


@dataclass(frozen=True, slots=True)
class Details:
    version: Version
    manifest: Manifest
    evaluations: tuple[Evaluation, ...]
    #: What was made from it, by name.
    children: tuple[Version, ...] = ()

    def document(self) -> dict[str, object]:
        """``show --json``. Keys are only ever added."""
        manifest = self.manifest
        return {
            **summary_document(self.version),
            "ranks": {target.path: target.rank for target in manifest.targets if target.rank is not None},
            "scalings": {target.path: target.scaling for target in manifest.targets if target.scaling is not None},
            "alphas": {target.path: target.alpha for target in manifest.targets if target.alpha is not None},
            "modules": [target.path for target in manifest.targets],
            "extra_modules": list(manifest.extra_modules),
            "absent_targets": list(manifest.absent_targets),
            "peft_version": manifest.peft_version,
            "training": dict(manifest.training),
            "files": [
                {"path": entry.path, "digest": entry.digest, "size": entry.size, "role": entry.role.value}
                for entry in manifest.files
            ],
            "evaluations": [evaluation.document() for evaluation in self.evaluations],
            "lineage": [edge.document() for edge in manifest.lineage],
            "children": [child.reference for child in self.children],
            "findings": [finding.document() for finding in self.version.findings],
        }


def summary_document(version: Version) -> dict[str, object]:
    """One element of ``list --json``."""
    return {
        "adapter": str(version.adapter),
        "version": version.number,
        "digest": version.digest,
        "reference": version.reference,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "yanked": version.yanked is not None,
        "yank_reason": version.yanked,
        "created_at": version.created_at,
        "note": version.note,
        **version.summary.document(),
        "score": version.score.document() if version.score else None,
    }


def show(reference: Reference, *, blobs: BlobStore, catalog: Catalog, visible: Visible | None = None) -> Details:
    """``visible`` are the children that may be shown. Raises NotFoundError, CorruptionError."""
    version = catalog.resolve(reference)
    made_from_it = VersionQuery(parent=version.digest, all_versions=True, limit=MAX_PAGE, visible=visible)
    return Details(
        version,
        manifest_of(version.digest, blobs),
        tuple(catalog.evaluations(version)),
        tuple(catalog.search(made_from_it)),
    )
