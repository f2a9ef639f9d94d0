"""What a check costs: ``python -m tests.benchmarks.check``.

A base of the shapes of Llama-2-7B (three shards that have a header and no data on the disk) and an adapter of all its linear
layers, r = 16 in BF16: 80 MB of random numbers. Targets: at most 50 ms to hold a described adapter against the base from
the base's headers; at most 1 s and 150 MiB for the whole command; a safetensors header of 90 MB refused within 100 ms and
16 MiB. The peer of describing is ``sha256sum`` of the weights: every byte is read once.

Then the verdicts themselves, beside those of adapterbridge (``--adapterbridge DIR``, where ``pip install --no-deps
--target DIR adapterbridge`` put it), on the trained and the broken adapters of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.errors import RegistryError
from registry.formats.safetensors_header import MAX_HEADER, MAX_TENSORS, read_header
from registry.operations.bases import base_called
from registry.operations.check import Answer, adapter_in, check
from registry.operations.describe import describe
from registry.operations.know_base import MAX_HEADER as MAX_SHARD_HEADER
from tests.benchmarks.adapters import TINY, write_lora
from tests.benchmarks.measure import (
    ADAPTERS,
    MIB,
    Series,
    command,
    inside,
    mebibytes,
    milliseconds,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY = 4096, 11008, 32, 32000
LLAMA_7B = {
    **{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
SHARDS = 3
HOLDING, WALL, PEAK, REFUSAL, REFUSAL_PEAK = 0.050, 1.0, 150 * MIB, 0.100, 16 * MIB
SHA256SUM, DESCRIBE = "sha256sum", "describe: read, hash, scan"
STARTUP, COMMAND = "adapters check TINY --for vllm", "adapters check … --base … --for vllm"
HOLD, TYPER = "base from its headers, then the rules", 'python -c "import typer"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--adapterbridge", type=Path, metavar="DIR", help="where pip put it: it is no dependency of ours")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adapters-bench-") as folder:
        work = Path(folder)
        adapter, base = write_adapter(work / "lora"), write_base(work / "llama-2-7b")
        tiny = write_lora(work / "tiny", modules=TINY, layers=1, rank=2)
        one_check(adapter, base, tiny, rounds=options.rounds)
        hostile_headers(work, rounds=options.rounds)
    from tests.benchmarks.check_peer import verdicts  # torch and peft: not in the memory of what came before

    verdicts(options.adapterbridge)


def one_check(adapter: Path, base: Path, tiny: Path, *, rounds: int) -> None:
    weights = adapter / "adapter_model.safetensors"
    described, known = adapter_in(adapter), base_called(str(base))
    answer = check(described, known)
    if answer.answer is not Answer.FITS or answer.matched != len(answer.tensors):
        raise SystemExit(f"it must fit: {answer.findings}")
    size = sum(path.stat().st_size for path in base.iterdir())
    on_disk = sum(path.stat().st_blocks * 512 for path in base.iterdir())
    facts = {
        "adapter": f"{weights.stat().st_size / 1e6:.1f} MB, {len(answer.tensors)} tensors in BF16, r = 16",
        "base": f"{size / 1e9:.1f} GB in {SHARDS} shards, of which {mebibytes(on_disk)} are on the disk",
        "rounds": rounds,
    }
    print_machine("Check of one adapter against a 7B base", facts)
    found = race(
        {
            SHA256SUM: command("sha256sum", str(weights)),
            DESCRIBE: inside(lambda: describe(adapter)),
            "rules alone": inside(lambda: check(described, known)),
            "base from its headers": inside(lambda: base_called(str(base))),
            HOLD: inside(lambda: check(described, base_called(str(base)))),
            "describe, base, rules": inside(lambda: check(adapter_in(adapter), base_called(str(base)))),
            TYPER: command(sys.executable, "-c", "import typer"),
            "adapters check --help": command(ADAPTERS, "check", "--help"),
            STARTUP: command(ADAPTERS, "check", str(tiny), "--for", "vllm"),
            COMMAND: command(ADAPTERS, "check", str(adapter), "--base", str(base), "--for", "vllm"),
        },
        rounds=rounds,
    )
    whole, startup = found[COMMAND], found[STARTUP]
    targets = {HOLD: HOLDING, "rules alone": HOLDING, COMMAND: WALL}
    print_table(
        ["work", "median", "spread", "CPU", "peak", "target"],
        [(name, *_costs(series), _target(series.median, targets.get(name))) for name, series in found.items()],
    )
    print(f"* describing is {found[DESCRIBE].median / found[SHA256SUM].median:.2f}× sha256sum of the weights")
    print(f"* holding is {found[HOLD].median / found[SHA256SUM].median:.2f}× sha256sum of the weights")
    print(f"* the command is {whole.median / found[TYPER].median:.2f}× import typer ({whole.cpu / found[TYPER].cpu:.2f}× its CPU)")
    print(f"* beyond a tiny adapter it is {(whole.cpu - startup.cpu) / found[SHA256SUM].cpu:.2f}× the CPU of sha256sum")
    print(f"* its peak memory is {mebibytes(whole.peak)}; target ≤ {mebibytes(PEAK)}: {verdict(whole.peak, PEAK)}\n", flush=True)


def _costs(series: Series) -> tuple[str, ...]:
    peak = mebibytes(series.peak) if series.peak else ""
    return milliseconds(series.median), per_cent(series.spread), milliseconds(series.cpu), peak


def _target(seconds: float, target: float | None) -> str:
    return f"≤ {milliseconds(target)}: {verdict(seconds, target)}" if target is not None else ""


def hostile_headers(folder: Path, *, rounds: int) -> None:
    """Headers longer than anybody needs: the refused ones are true to their length, and so is the longest that is read."""
    long = 90_000_000
    adapter = write_lora(folder / "hostile", modules={"self_attn.q_proj": (8, 8)}, layers=1, rank=2)
    write_header(adapter / "adapter_model.safetensors", long)
    base = folder / "hostile-base"
    base.mkdir()
    write_header(base / "model.safetensors", long)

    def read(longest: int) -> Callable[[], object]:
        path = folder / f"{longest}.safetensors"
        write_header(path, longest)

        def work() -> None:
            with path.open("rb") as file:
                read_header(file, size=path.stat().st_size, where=path.name, max_header=longest)

        return work

    works: dict[str, Callable[[], object]] = {
        "adapter with a header of 90 MB": lambda: refused(lambda: adapter_in(adapter)),
        "base with a header of 90 MB": lambda: refused(lambda: base_called(str(base))),
        f"the longest of an adapter that is read, {mebibytes(MAX_HEADER)}": read(MAX_HEADER),
        f"the longest of a base's shard that is read, {mebibytes(MAX_SHARD_HEADER)}": read(MAX_SHARD_HEADER),
    }
    print_machine("Hostile headers", {"rounds": rounds})
    found = race({name: inside(work) for name, work in works.items()}, rounds=rounds)
    rows = []
    for name, work in works.items():
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        met = verdict(found[name].median, REFUSAL), verdict(peak, REFUSAL_PEAK)
        target = f"≤ {milliseconds(REFUSAL)}: {met[0]}; ≤ {mebibytes(REFUSAL_PEAK)}: {met[1]}" if "90 MB" in name else ""
        rows.append((name, milliseconds(found[name].median), per_cent(found[name].spread), mebibytes(peak), target))
    print_table(["header", "median", "spread", "allocated", "target"], rows)


def refused(work: Callable[[], object]) -> None:
    try:
        work()
    except RegistryError as error:
        if error.code == "header-too-large":
            return
        raise
    raise SystemExit("a header of 90 MB was read")


def write_header(path: Path, length: int) -> None:
    """A sound header of ``length`` bytes and no data: as many empty tensors as go in or may be, and then spaces."""
    width = max(8, length // MAX_TENSORS - 40)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length) + b"{")
        left, number = length - 2, 0
        while True:
            entry = b'%s"%0*d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % (b"," if number else b"", width, number)
            if len(entry) > left:
                break
            file.write(entry)
            left, number = left - len(entry), number + 1
        file.write(b"}" + b" " * left)


def write_adapter(directory: Path) -> Path:
    write_lora(directory, modules=LLAMA_7B, layers=LAYERS, rank=16, dtype="BF16")
    path = directory / "adapter_config.json"
    path.write_text(path.read_text().replace("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "meta-llama/Llama-2-7b-hf"))
    return directory


def write_base(directory: Path) -> Path:
    """Index and shards as ``save_pretrained`` writes them; what lies behind the headers is a hole."""
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    tensors = [*base_tensors()]
    places: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        mine = tensors[shard * len(tensors) // SHARDS : (shard + 1) * len(tensors) // SHARDS]
        write_hole(directory / name, mine)
        places |= {tensor: name for tensor, _ in mine}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return directory


def base_tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for module, (wide, high) in LLAMA_7B.items():
            yield f"model.layers.{layer}.{module}.weight", (high, wide)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def write_hole(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors:
        end = position + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + position)


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"* {time.perf_counter() - start:.0f} s in all")
