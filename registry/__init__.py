"""adapter-registry: a versioned registry and packaging toolchain for LoRA adapters.

Start at :mod:`registry.connect`; the vocabulary is :mod:`registry.domain`, the failures are :mod:`registry.errors`.
"""
