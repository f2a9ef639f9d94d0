"""What trainers leave in an adapter's directory: which files are kept, kept beside, left out, or refused.

PEFT writes two files; Trainer, TRL, Axolotl, LLaMA-Factory, ms-swift and Unsloth add tokenizers, cards, logs,
optimizer states and checkpoints. The lists follow what those tools write (PEFT 0.21, transformers 5, TRL 1,
LLaMA-Factory 0.9, Axolotl 0.19).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from fnmatch import fnmatchcase

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
EVALUATIONS_FOLDER = ".eval_results"

#: What PEFT loads instead of :data:`WEIGHTS`, in its order.
PICKLED_WEIGHTS = ("adapter_model.bin", "adapter_model.pt")

#: Bytes. Tokenizers reach tens of megabytes; records that are larger are logs.
MAX_SERVED_FILE = 256 << 20
MAX_SIDECAR_FILE = 32 << 20


class Disposition(Enum):
    SERVED = auto()  #: belongs to what engines load
    SIDECAR = auto()  #: kept with the version, not part of what engines load
    IGNORED = auto()  #: known not to belong to an adapter: checkpoints, optimizer states, logs, caches
    PICKLE = auto()  #: never opened, never kept
    CODE = auto()  #: refused: nobody should receive code with weights
    UNKNOWN = auto()  #: left out, and said


#: A tokenizer's own files.
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
_SERVED = (
    CONFIG, WEIGHTS, "README.md", "LICENSE*", "NOTICE*", "USE_POLICY*", *TOKENIZER, "sentencepiece*.model", "*.tiktoken",
    "preprocessor_config.json", "processor_config.json", "generation_config.json",
)  # fmt: skip
_SIDECARS = (
    "*.json", "*.jsonl", "*.yaml", "*.yml", "*.toml", "*.md", "*.txt", "*.csv", "*.tsv", "*.jinja", "*.png", "*.svg",
    "value_head.safetensors",
)  # fmt: skip
_IGNORED = (
    "optimizer*", "scheduler.*", "scaler.*", "rng_state*", "*.log", "events.out.tfevents*", "model*.safetensors",
    "pytorch_model*", "*.gguf", ".gitattributes", ".gitignore", ".DS_Store", "*.lock", "*.index.json",
)  # fmt: skip
_IGNORED_FOLDERS = (
    "checkpoint-*", "global_step*", "runs", "wandb", "mlruns", "logs", ".git", ".cache", "__pycache__", ".ipynb_checkpoints",
    "pytorch_model_fsdp_*", "pissa_init", "pissa_backup", "pissa_converted", "merged",
)  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib")
_CODE = (
    "*.py", "*.pyc", "*.pyd", "*.pyx", "*.so", "*.so.*", "*.dll", "*.dylib", "*.exe", "*.sh", "*.bash", "*.bat", "*.cmd",
    "*.ps1", "*.js", "*.mjs", "*.jar", "*.rb", "*.pl", "*.lua", "*.wasm",
)  # fmt: skip
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+ -]{0,200}", re.ASCII)


def disposition(name: str) -> Disposition:
    """What to do with a regular file at the top of the directory, by its name alone."""
    lowered = name.lower()
    if _matches(lowered, _CODE):
        return Disposition.CODE
    if _matches(name, _SERVED):
        return Disposition.SERVED
    if _matches(lowered, _PICKLES):
        return Disposition.IGNORED if _matches(lowered, _IGNORED) else Disposition.PICKLE
    if _matches(lowered, _IGNORED):
        return Disposition.IGNORED
    if _matches(lowered, _SIDECARS) and not name.startswith(".") and _SAFE_NAME.fullmatch(name):
        return Disposition.SIDECAR
    return Disposition.UNKNOWN


def ignored_folder(name: str) -> bool:
    """Whether a folder of this name is known not to belong to an adapter."""
    return _matches(name, _IGNORED_FOLDERS)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
