"""What ``adapter_config.json`` of the copy says.

Only what the engine reads or refuses is written anew; fields of training stay, and so do fields that nobody here knows.
The order of the file is kept, since PEFT takes the first pattern that matches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from registry.checks.profile import Profile
from registry.checks.repair_scale import Rescaling, wrapped_parameter
from registry.checks.repair_words import Change
from registry.checks.rule import Subject
from registry.checks.serving_features import use_of
from registry.variants.findings import some
from registry.variants.lora_layers import LoraLayer
from registry.variants.lora_settings import read_settings

_DEFAULTS: Mapping[str, object] = {"r": 8, "lora_alpha": 8}
#: What narrows target_modules, and says nothing beside full paths.
_SELECTORS = ("exclude_modules", "layers_to_transform", "layers_pattern")

Config = dict[str, object]


def repaired_config(
    subject: Subject, profile: Profile, layers: Mapping[str, LoraLayer], rescaling: Rescaling
) -> tuple[Config, tuple[Change, ...]]:
    config: Config = dict(subject.config.raw)
    changes: list[Change] = []
    if rescaling.alpha is not None:
        config |= {"lora_alpha": rescaling.alpha, "alpha_pattern": {}, "use_rslora": False}
        if rescaling.rank is not None:
            config |= {"r": rescaling.rank, "rank_pattern": {}}
    if subject.manifest.peft_type == "LORA":
        changes += _resolve_patterns(config, subject, profile, layers)
        changes += _list_targets(config, subject, profile, layers)
        changes += _write_defaults(config, profile)
        changes += _clear_biases(config, subject, profile)
    changes += _name_base(config, subject)
    if config.get("inference_mode") is not True:
        config["inference_mode"] = True
    return config, tuple(changes)


def _resolve_patterns(
    config: Config, subject: Subject, profile: Profile, layers: Mapping[str, LoraLayer]
) -> Iterator[Change]:
    """Patterns of both kinds, which PEFT before 0.14 looked up by one key (huggingface/peft#2194), become the paths of the
    modules. The first word of a path is left away, since 0.14 wants something before the key."""
    if profile.engine != "peft" or not (config.get("rank_pattern") and config.get("alpha_pattern")):
        return
    settings = read_settings(subject.config)
    targets = [
        target
        for target in subject.manifest.targets
        if target.path in layers and ".base_layer." not in layers[target.path].path
    ]
    if any(target.rank is None or target.alpha is None for target in subject.manifest.targets):
        return
    endings = Counter(ending for target in targets for ending in _endings(target.path))
    keys = {}
    for target in targets:
        shorter = target.path.partition(".")[2]
        keys[target.path] = re.escape(shorter if shorter and endings[shorter] == 1 else target.path)
    config["rank_pattern"] = {keys[one.path]: one.rank for one in targets if one.rank != settings.r}
    config["alpha_pattern"] = {keys[one.path]: _plain(one.alpha) for one in targets if one.alpha != settings.alpha}
    yield Change("patterns-resolved", "rank_pattern and alpha_pattern name the modules, as every PEFT understands them")


def _endings(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.partition(".")[2]


def _plain(number: float | None) -> float | None:
    return int(number) if number is not None and number == int(number) else number


def _list_targets(
    config: Config, subject: Subject, profile: Profile, layers: Mapping[str, LoraLayer]
) -> Iterator[Change]:
    """A list of what the tensors hold, for engines that read it. Of one regular expression the full paths are left, which
    select these modules and no other, whatever the base has."""
    if "target_modules" not in profile.requires:
        return
    was = config.get("target_modules")
    absent = frozenset(subject.manifest.absent_targets)
    if isinstance(was, list):
        names: Sequence[object] = sorted({name for name in was if isinstance(name, str) and name not in absent})
        if names == sorted(map(str, was)):
            return
    else:
        names = [
            target.path
            for target in subject.manifest.targets
            if (layer := layers.get(target.path)) is not None
            and not wrapped_parameter(target.path, layer)
            and ".base_layer." not in layer.path
        ]
        config |= {field: None for field in _SELECTORS if config.get(field)}
    config["target_modules"] = names
    yield Change("targets-listed", f"target_modules is the list of the {len(names)} modules that the tensors are for")


def _write_defaults(config: Config, profile: Profile) -> Iterator[Change]:
    missing = [field for field in profile.requires if field in _DEFAULTS and config.get(field) is None]
    if missing:
        config |= {field: _DEFAULTS[field] for field in missing}
        yield Change("defaults-written", f"{some(missing)} written with the value that PEFT takes where there is none")


def _clear_biases(config: Config, subject: Subject, profile: Profile) -> Iterator[Change]:
    """PEFT 0.7 to 0.20 announced the biases of ``lora_only`` and did not save them."""
    use = use_of(subject, "bias")
    if use.field is not None and not use.is_present and "bias" in profile.refuses_config:
        yield Change("bias-none", f"bias is none, was {config['bias']}: the file has no bias")
        config["bias"] = "none"


def _name_base(config: Config, subject: Subject) -> Iterator[Change]:
    known = subject.manifest.base_model
    if known.id is None:
        return
    was = config.get("base_model_name_or_path")
    if was != known.id:
        config["base_model_name_or_path"] = known.id
        yield Change("base-renamed", f"base_model_name_or_path is {known.id}, was {was}")
    if known.revision is not None and config.get("revision") != known.revision:
        yield Change("base-revision", f"revision (the base's) is {known.revision}, was {config.get('revision')}")
        config["revision"] = known.revision
