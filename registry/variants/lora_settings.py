"""What of a LoRA config matters to the mathematics, with types and PEFT's defaults: ``peft/tuners/lora/config.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry.formats.adapter_config import AdapterConfig
from registry.variants.settings import positive_ranks

#: Field → variant, in the order in which they are asked; PEFT refuses almost all combinations.
_VARIANTS = (
    ("alora_invocation_tokens", "alora"),
    ("arrow_config", "arrow"),
    ("use_qalora", "qalora"),
    ("use_bdlora", "bdlora"),
    ("kasa_config", "kasa"),
    ("monteclora_config", "monteclora"),
    ("velora_config", "velora"),
    ("use_dora", "dora"),
)


@dataclass(frozen=True, slots=True)
class BlockDiagonal:
    """BD-LoRA stores one factor of a module as its diagonal blocks; which, a substring of the module's path says."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    blocks: int

    def blocks_of_a(self, path: str) -> int:
        return self.blocks if any(part in path for part in self.a) else 1

    def blocks_of_b(self, path: str) -> int:
        return self.blocks if any(part in path for part in self.b) else 1


@dataclass(frozen=True, slots=True)
class LoraSettings:
    variant: str
    r: int
    alpha: float
    rslora: bool
    dora: bool
    kasa: bool
    lora_bias: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_parameters: tuple[str, ...]
    block_diagonal: BlockDiagonal | None
    initialization: str

    @property
    def base_change(self) -> str | None:
        """The initialisation that took something out of the base, so that the factors are no delta to the base as it
        was: ``pissa_niter_16`` → ``pissa``."""
        if self.kasa:
            return "kasa"
        lower = self.initialization.lower()
        return next((name for name in ("pissa", "corda", "olora", "loftq", "lora_ga") if lower.startswith(name)), None)


def read_settings(config: AdapterConfig) -> LoraSettings:
    """Raises :class:`~registry.errors.MalformedConfigError` for a value that matters and is of the wrong type."""
    ranks = positive_ranks(config)
    alpha = config.number("lora_alpha", 8)
    alpha_pattern = config.numbers_by_pattern("alpha_pattern")
    config.flag("fan_in_fan_out")
    config.flag("use_qalora")
    target_parameters = config.names("target_parameters")
    if isinstance(target_parameters, str):
        raise config.refuse("target_parameters", target_parameters, "a list of parameter names")
    initialization = config.raw.get("init_lora_weights")
    if not (initialization is None or isinstance(initialization, bool | str)):
        raise config.refuse("init_lora_weights", initialization, "true, false or the name of an initialisation")
    return LoraSettings(
        variant=next((variant for field, variant in _VARIANTS if config.truthy(field)), "lora"),
        r=ranks.r,
        alpha=alpha,
        rslora=config.flag("use_rslora"),
        dora=config.flag("use_dora"),
        kasa=config.truthy("kasa_config"),
        lora_bias=config.flag("lora_bias"),
        rank_pattern=ranks.pattern,
        alpha_pattern=alpha_pattern,
        target_parameters=target_parameters or (),
        block_diagonal=_block_diagonal(config),
        initialization=initialization if isinstance(initialization, str) else "",
    )


def _block_diagonal(config: AdapterConfig) -> BlockDiagonal | None:
    value = config.raw.get("use_bdlora")
    if not value:
        return None
    if not isinstance(value, dict):
        raise config.refuse("use_bdlora", value, "an object with target_modules_bd_a, target_modules_bd_b and nblocks")
    inner = AdapterConfig(value, f"{config.where}: use_bdlora")
    a = inner.names("target_modules_bd_a") or ()
    b = inner.names("target_modules_bd_b") or ()
    blocks = inner.integer("nblocks", 1)
    if isinstance(a, str) or isinstance(b, str):
        raise config.refuse("use_bdlora", value, "lists of names in target_modules_bd_a and target_modules_bd_b")
    if blocks < 1:
        raise config.refuse("use_bdlora", value, "a positive nblocks")
    return BlockDiagonal(a, b, blocks)
