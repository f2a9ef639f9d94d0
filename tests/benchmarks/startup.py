"""How soon a command answers: ``python -m tests.benchmarks.startup``.

The peers are the imports that the command line and the catalog stand on. Targets: ``--help`` at most twice
``import typer``, ``list`` of 100 adapters at most 1.4 times ``import sqlmodel``, and no tensor library imported.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from registry.connect import Failed, connect
from tests.benchmarks.adapters import TINY, write_lora
from tests.benchmarks.measure import (
    ADAPTERS,
    command,
    mebibytes,
    milliseconds,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)

HEAVY = ("torch", "numpy", "safetensors", "peft", "transformers", "alembic", "rich")

_MODULES_OF = """
import sys
sys.argv[0] = "adapters"
from cli.main import main
try:
    main()
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="adapters-bench-") as folder:
        work = Path(folder)
        store = str(work / "registry")
        fill(work, store, count=100)
        print_machine("Start-up", {"registry": "100 adapters", "rounds": rounds})
        found = race(
            {
                'python -c ""': command(sys.executable, "-c", ""),
                'python -c "import typer"': command(sys.executable, "-c", "import typer"),
                "adapters --help": command(ADAPTERS, "--help"),
                "adapters push --help": command(ADAPTERS, "push", "--help"),
                'python -c "import sqlmodel"': command(sys.executable, "-c", "import sqlmodel"),
                "adapters list": command(ADAPTERS, "list", ADAPTERS_REGISTRY=store),
                "adapters list --limit 100": command(ADAPTERS, "list", "--limit", "100", ADAPTERS_REGISTRY=store),
                "adapters show": command(ADAPTERS, "show", "lora-7", ADAPTERS_REGISTRY=store),
            },
            rounds=rounds,
        )
        typer, sqlmodel = found['python -c "import typer"'], found['python -c "import sqlmodel"']
        targets = {"adapters --help": (typer, 2.0), "adapters list": (sqlmodel, 1.4)}
        rows = []
        for name, series in found.items():
            peer, target = targets.get(name, (typer if "--help" in name else sqlmodel, 0.0))
            ratio, ours = series.median / peer.median, name.startswith("adapters")
            rows.append(
                (
                    name,
                    milliseconds(series.median),
                    per_cent(series.spread),
                    milliseconds(series.cpu),
                    f"{ratio:.2f}×" if ours else "",
                    f"{series.cpu / peer.cpu:.2f}×" if ours else "",
                    f"≤ {target}×: {verdict(ratio, target)}" if target else "",
                    mebibytes(series.peak),
                )
            )
        print_table(["command", "median", "spread", "CPU", "of its peer", "CPU of its peer", "target", "peak"], rows)
        for words in (["--help"], ["list"], ["show", "lora-7"], ["push", str(work / "lora-7")]):
            modules = modules_of(words, store)
            heavy = [name for name in HEAVY if name in modules]
            print(f"* `adapters {words[0]}` imports {len(modules)} modules; heavy ones: {', '.join(heavy) or 'none'}")


def fill(work: Path, store: str, *, count: int) -> None:
    directories = [write_lora(work / f"lora-{seed}", modules=TINY, layers=2, rank=4, seed=seed) for seed in range(count)]
    for pushed in connect(store).push_many(directories):
        if isinstance(pushed, Failed):
            raise pushed.error


def modules_of(words: list[str], store: str) -> set[str]:
    """What a command imports, asked of the command itself."""
    done = subprocess.run(
        [sys.executable, "-c", _MODULES_OF, *words, *(["--registry", store] if words != ["--help"] else [])],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


if __name__ == "__main__":
    main()
