"""The verdicts of ``adapters check`` and of adapterbridge on the same adapters, which PEFT trained and the tests broke.

adapterbridge has no input for a base: its ``check`` judges an adapter for an engine, its ``verify`` counts bytes and looks
for the config's rank in the shapes. So each of its engines is asked, with the base's ``config.json`` laid beside the adapter
as it demands, and "fits" is read as: compatible, and the dry run succeeds. Both run in this process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from registry.operations.bases import base_called
from registry.operations.check import Answer, adapter_in, check
from tests.benchmarks.measure import milliseconds, print_machine, print_table
from tests.oracle.test_check_against_peft import CASES, MUTANTS, TRAINED, train

ENGINES = ("vllm", "sglang", "tensorrt", "ollama")
ROUNDS = 3
Fits = Callable[[Path, Path], bool]  # adapter, base


@dataclass(frozen=True, slots=True)
class Sample:
    """``broken`` is what was done to it, None where nothing was; ``whole`` is then the adapter it was made of."""

    adapter: Path
    base: Path
    broken: str | None = None
    whole: Path | None = None


def verdicts(installed: Path | None) -> None:
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="adapters-bench-") as folder:
        os.environ["HOME"] = folder  # adapterbridge writes a cache there
        samples = make(Path(folder))
        peer = _adapterbridge(installed)
        contestants: dict[str, Fits] = {"adapters check": _ours}
        if peer is not None:
            inspector = peer.AdapterInspector
            contestants["adapterbridge verify"] = _dry_run(inspector)
            for engine in ENGINES:
                contestants[f"adapterbridge check + verify, {engine}"] = _bridge(inspector, engine)
        print_machine(
            "Verdicts: adapter against base",
            {
                "adapterbridge": _version(installed) if peer is not None else "not installed",
                "cases": f"{sum(not one.broken for one in samples)} trained on their base by PEFT, "
                f"{sum(bool(one.broken) for one in samples)} of them broken; {len(CASES)} pairs of classes",
                "rounds": ROUNDS,
            },
        )
        _print(samples, {name: _judge(samples, fits) for name, fits in contestants.items()})
    if peer is not None:
        print("* adapterbridge cannot be told the base, so it answers alike for every base. It looks at the config's rank in each")
        print("  shape; it cannot express a target that the base lacks, a width, an orphan factor, a prefix that the base needs.")
        print("  Its vLLM and SGLang rules refuse the prefix that PEFT writes, which makes false alarms: what they refuse of the")
        print("  broken ones they would refuse unbroken, and only the column after the misses counts what they tell apart.\n")


def make(folder: Path) -> list[Sample]:
    bases: dict[str, Path] = {}
    plain: dict[str, Path] = {}
    samples = []
    for case in CASES:
        torch.manual_seed(0)
        bases[case.name] = folder / "bases" / case.name.replace(" ", "-")
        case.base().save_pretrained(bases[case.name])
    for case, form in TRAINED:
        adapter = train(case, form, folder / "trained" / case.name.replace(" ", "-") / form)
        plain.setdefault(case.name, adapter)
        samples.append(Sample(adapter, bases[case.name]))
    for number, mutant in enumerate(MUTANTS):
        each: Any = mutant  # whose values pytest types as objects
        case, mutate = each.values
        tensors = load_file(plain[case.name] / "adapter_model.safetensors")
        config = json.loads((plain[case.name] / "adapter_config.json").read_text())
        mutate(case, tensors, config)
        adapter = folder / "broken" / str(number)
        adapter.mkdir(parents=True)
        save_file(tensors, adapter / "adapter_model.safetensors")
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        samples.append(Sample(adapter, bases[case.name], mutate.__name__, plain[case.name]))
    for sample in samples:
        shutil.copy(sample.base / "config.json", sample.adapter)
    return samples


def _ours(adapter: Path, base: Path) -> bool:
    return check(adapter_in(adapter), base_called(str(base))).answer is Answer.FITS


def _dry_run(inspector: Callable[..., Any]) -> Fits:
    return lambda adapter, _base: bool(inspector(str(adapter), ENGINES[0]).verify_dry_run().success)


def _bridge(inspector: Callable[..., Any], engine: str) -> Fits:
    def fits(adapter: Path, _base: Path) -> bool:
        asked = inspector(str(adapter), engine)
        return bool(asked.run_diagnostics().is_compatible and asked.verify_dry_run().success)

    return fits


def _judge(samples: list[Sample], fits: Fits) -> tuple[dict[Path, bool], float]:
    """The answers, and the median over the rounds of the mean time of one check."""
    answers: dict[Path, bool] = {}
    seconds = []
    for turn in range(-1, ROUNDS):
        start = time.perf_counter()
        answers = {sample.adapter: fits(sample.adapter, sample.base) for sample in samples}
        if turn >= 0:
            seconds.append((time.perf_counter() - start) / len(samples))
    return answers, statistics.median(seconds)


def _print(samples: list[Sample], found: Mapping[str, tuple[dict[Path, bool], float]]) -> None:
    fitting = [sample for sample in samples if sample.broken is None]
    broken = [sample for sample in samples if sample.broken is not None]
    rows: list[tuple[str, ...]] = []
    kinds = Counter(sample.broken for sample in broken)
    for name, (answers, seconds) in found.items():
        alarms = sum(not answers[sample.adapter] for sample in fitting)
        misses = sum(answers[sample.adapter] for sample in broken)
        told = sum(answers[sample.whole] and not answers[sample.adapter] for sample in broken if sample.whole)
        counts = (f"{alarms} of {len(fitting)}", f"{misses} of {len(broken)}", f"{told} of {len(broken)}")
        rows.append((name, *counts, milliseconds(seconds)))
    heads = ["checker", "false alarms", "misses", "broken refused, unbroken accepted", "time per check"]
    print_table(heads, rows)
    rows = []
    for kind, count in kinds.items():
        mine = [sample.adapter for sample in broken if sample.broken == kind]
        missed = (sum(answers[adapter] for adapter in mine) for answers, _ in found.values())
        rows.append((str(kind), *(f"{number} of {count}" for number in missed)))
    names = (name.replace("adapterbridge check + verify,", "adapterbridge,") for name in found)
    print_table(["misses, by what was done", *names], rows)


def _adapterbridge(installed: Path | None) -> ModuleType | None:
    if installed is not None:
        sys.path.append(str(installed))
    try:
        return importlib.import_module("adapterbridge")
    except ImportError:
        return None


def _version(installed: Path | None) -> str:
    paths = [str(installed)] if installed is not None else sys.path
    return next((each.version for each in importlib.metadata.distributions(name="adapterbridge", path=paths)), "unknown")
