"""A base model on the Hub: its config and the headers of its weights, never the weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.domain.tensors import TensorSpec
from registry.hub.patience import ask
from registry.hub.trouble import shown

_CONFIG = "config.json"
_DESCRIPTIONS = (_CONFIG, "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class HubBase:
    """``commit`` is what the revision stood for; ``tensors`` is None where the weights are not in safetensors files."""

    commit: str
    config: bytes
    tensors: tuple[TensorSpec, ...] | None


def base_on_hub(repository: str, revision: str | None) -> HubBase:
    """Ask the Hub: three small requests and one range a shard. Raises what :func:`registry.hub.patience.ask` does."""
    return ask(
        shown(repository, revision), partial(_described, repository, revision), instead="give a checkpoint's directory"
    )


def _described(repository: str, revision: str | None) -> HubBase:
    from huggingface_hub import HfApi, errors, hf_hub_download

    api = HfApi()
    commit = api.model_info(repository, revision=revision).sha or ""
    config = Path(hf_hub_download(repository, _CONFIG, revision=commit)).read_bytes()
    try:
        found = api.get_safetensors_metadata(repository, revision=commit)
    except errors.NotASafetensorsRepoError:
        return HubBase(commit, config, None)
    tensors = tuple(
        TensorSpec(name, tensor.dtype, tuple(tensor.shape), *tensor.data_offsets)
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    )
    return HubBase(commit, config, tensors)


def base_in_cache(repository: str, revision: str | None) -> Path | None:
    """The snapshot's directory in the Hub's cache on this machine, if there is one. Asks nobody."""
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        return None
    if not Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}").is_dir():
        return None  # without importing the whole library
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            repository, revision=revision, local_files_only=True, allow_patterns=list(_DESCRIPTIONS)
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    return Path(found)
