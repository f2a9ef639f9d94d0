"""A base of which only ``config.json`` is at hand: transformers builds the model without weights, and says its shapes.

The config may be a stranger's. So it is built in a process of its own, in which no code beside the config is ever loaded;
its counts are looked at before, and its memory and time are bounded. A config that goes beyond is refused, not believed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from math import prod

from registry.domain.tensors import TensorSpec
from registry.errors import UnavailableError
from registry.formats import model_config
from registry.formats.model_config import ModelConfig

_PATIENCE = 120.0
#: What models are made of one by one, and how many there may be; the largest known have 126 layers and 2,048 experts.
_MOST = (
    (re.compile(r"(?:.*_)?(?:n_?layers?|layers?|depths?|(?:num_|n_)?blocks|stages)"), 1024),
    (re.compile(r"(?:.*_)?experts?"), 16384),
)
#: Layers times experts: the largest known model has 61 · 384.
_MOST_MODULES = 1 << 17

#: Prints name and shape of every parameter. ``config.json`` comes on stdin, so that no code beside it is ever loaded. A model
#: of 126 layers takes 0.4 GiB and five seconds.
_BUILD = """
import json, os, pathlib, resource, signal, sys, tempfile, warnings
for kind, most in ((resource.RLIMIT_CPU, 60), (resource.RLIMIT_DATA, 4 << 30)):  # also when nobody is there to end it
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))
signal.alarm(150)
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")
import torch, transformers
transformers.logging.set_verbosity_error()
with tempfile.TemporaryDirectory() as place:
    pathlib.Path(place, "config.json").write_text(sys.stdin.read())
    config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
make = getattr(transformers, (config.architectures or [""])[0], None)
with torch.device("meta"):
    if isinstance(make, type) and issubclass(make, transformers.PreTrainedModel):
        model = make(config)
    else:
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
print(json.dumps([[name, list(one.shape)] for name, one in model.named_parameters()]))
"""

#: What architectures call their width or depth.
_SIZES = frozenset(
    {"hidden_size", "d_model", "n_embd", "dim", "num_hidden_layers", "num_layers", "n_layer", "n_layers"}
)


def built(where: str, config: ModelConfig) -> list[TensorSpec]:
    """What transformers makes of the config. A default model of the type is nobody's base: some of it has to be said.

    Raises UnavailableError (``shapes-unknown``).
    """
    if not config.architectures and not _SIZES & config.raw.keys() and not config.text_config:
        raise UnavailableError(
            f"the {model_config.NAME} of {where} names neither an architecture nor a size, so it is no model's",
            code="shapes-unknown",
            hint="give the directory that transformers' save_pretrained wrote",
        )
    _require_buildable(where, config)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BUILD],
            input=json.dumps(config.raw),
            timeout=_PATIENCE,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        rows = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        raise UnavailableError(
            f"{where} has a {model_config.NAME} and no weights, so the base's shapes cannot be known",
            code="shapes-unknown",
            hint="give a directory with the checkpoint's safetensors files, or install transformers and torch",
        ) from None
    return [TensorSpec(str(name), "F32", tuple(int(size) for size in shape)) for name, shape in rows]


def _require_buildable(where: str, config: ModelConfig) -> None:
    largest = [1] * len(_MOST)
    for key, value in _numbers(config.raw):
        for at, (pattern, most) in enumerate(_MOST):
            if pattern.fullmatch(key):
                largest[at] = max(largest[at], value)
                if value > most:
                    _refuse(where, f"{key} is {value:,}, more than the {most:,} that are built")
    if prod(largest) > _MOST_MODULES:
        layers, experts = largest
        _refuse(where, f"it asks for {layers:,} layers of {experts:,} experts, more than are built")


def _numbers(value: object, key: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number in the config, with the key that it or its list stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _refuse(where: str, problem: str) -> None:
    raise UnavailableError(
        f"the {model_config.NAME} of {where} is no model's that can be built: {problem}",
        code="shapes-unknown",
        hint="get the base's config.json again, or give a directory with the checkpoint's safetensors files",
    )
