"""A repository's files on this machine: from the Hub's cache, downloaded into it where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from registry.errors import NotFoundError, UnavailableError

#: What of a model is needed to merge into it: no other format of its weights, and no code.
CHECKPOINT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken", "README.md", "LICENSE*")
ADAPTER = ("*.json", "adapter_model.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


def snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The directory of a snapshot. Raises NotFoundError where the Hub has no such repository or revision, and
    UnavailableError where it cannot be asked and the cache has not got it."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "repositories are fetched by huggingface_hub, which is not installed",
            code="hub-missing",
            hint="pip install 'adapter-registry[hub]', or give a directory",
        ) from error
    transport = errors.HTTPError  # type: ignore[attr-defined]  # what nobody answering is to httpx or requests
    where = f"{repository}{f'@{revision}' if revision else ''}"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NotFoundError(
            f"the Hub has no {where}, or keeps it from you",
            code="unknown-repository",
            hint="check name and revision; `hf auth login` where it is private or gated",
        ) from error
    except (OSError, transport, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnavailableError(
            f"{where} cannot be fetched from the Hub: {reason:.300}",
            code="hub-unavailable",
            hint="check the connection, or give a directory",
        ) from error
