"""What a page and a look-up cost among a hundred thousand versions: ``python -m tests.benchmarks.search``.

Two shapes: 10,000 adapters with 10 versions each, and 100,000 with one. Targets: at most 50 ms a page of 50, whatever is
asked; look-ups by name, number and alias at most 1.5 times as slow as among a thousand versions. ``--keep DIR`` builds the
catalogs there, or finds them there (about a minute each). ``--plans`` prints how SQLite goes about each page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from registry.connect import Registry, connect
from tests.benchmarks.catalogs import COMMON_BASE, RARE_BASE, RARE_TARGET, build
from tests.benchmarks.measure import (
    ADAPTERS,
    command,
    inside,
    mebibytes,
    milliseconds,
    own_peak,
    per_cent,
    print_machine,
    print_table,
    race,
    verdict,
)

PAGE_TARGET = 0.05
FLAT_TARGET = 1.5
SMALL = (1000, 1)
SHAPES = ((10_000, 10), (100_000, 1))

#: What is asked; ``after`` as a share of the way through: the page that far down the list.
PAGES: dict[str, dict[str, Any]] = {
    "everything": {},
    "base (30 %)": {"base": COMMON_BASE},
    "base (0.1 %)": {"base": RARE_BASE},
    "rank 8..32": {"rank": "8..32"},
    "rank 128 (10 %)": {"rank": 128},
    "target q_proj (all)": {"targets": ["q_proj"]},
    "target lm_head (1 %)": {"targets": [RARE_TARGET]},
    "base + rank + target, common": {"base": COMMON_BASE, "rank": "8..32", "targets": ["o_proj"]},
    "base + rank + target, rare": {"base": RARE_BASE, "rank": 4, "targets": [RARE_TARGET]},
    "base + rank + target + score, sorted": {
        "base": COMMON_BASE, "rank": "8..32", "targets": ["q_proj"], "metrics": ["acc>=0.8"], "sort": "acc",
    },
    "acc >= 0.8": {"metrics": ["acc>=0.8"]},
    "acc >= 0.999": {"metrics": ["acc>=0.999"]},
    "arc_easy/acc >= 0.8": {"metrics": ["arc_easy/acc>=0.8"]},
    "acc >= 2 (nothing)": {"metrics": ["acc>=2"]},
    "acc >= 0.8, perplexity < 5": {"metrics": ["acc>=0.8", "perplexity<5"]},
    "sort acc": {"sort": "acc"},
    "sort arc_easy/acc": {"sort": "arc_easy/acc"},
    "sort perplexity": {"sort": "perplexity"},
    "base (0.1 %), sort acc": {"base": RARE_BASE, "sort": "acc"},
    "base (30 %), acc >= 0.8, sort acc": {"base": COMMON_BASE, "metrics": ["acc>=0.8"], "sort": "acc"},
    "sort created": {"sort": "created"},
    "sort rank": {"sort": "rank"},
    "sort bytes": {"sort": "bytes"},
    "base (0.1 %), sort created": {"base": RARE_BASE, "sort": "created"},
    "tag customer=c0042 (few)": {"tags": ["customer=c0042"]},
    "tag language=de (20 %)": {"tags": ["language=de"]},
    "tag customer (all)": {"tags": ["customer"]},
    "tag nowhere (nothing)": {"tags": ["nowhere=1"]},
    "alias production (10 %)": {"alias": "production"},
    "alias canary (0.1 %)": {"alias": "canary"},
    "alias production, base (0.1 %)": {"alias": "production", "base": RARE_BASE},
    "text support (all)": {"text": "support"},
    "text 004242 (one)": {"text": "004242"},
    "text nothing-like-it": {"text": "nothing-like-it"},
    "all versions": {"all_versions": True},
    "all versions, base (0.1 %)": {"all_versions": True, "base": RARE_BASE},
    "all versions, rank 128": {"all_versions": True, "rank": 128},
    "all versions, rank 5 (nothing)": {"all_versions": True, "rank": 5},
    "rank 5 (nothing), sort bytes": {"rank": 5, "sort": "bytes"},
    "rank 5 (nothing), sort acc": {"rank": 5, "sort": "acc"},
    "all versions, sort acc": {"all_versions": True, "sort": "acc"},
    "all versions, sort created": {"all_versions": True, "sort": "created"},
    "all versions, text nothing-like-it": {"all_versions": True, "text": "nothing-like-it"},
    "type IA3 (nothing)": {"peft_type": "IA3"},
    "deep page of everything": {"after": 0.9},
    "deep page of base (30 %)": {"base": COMMON_BASE, "after": 0.9},
    "deep page, sort created": {"sort": "created", "after": 0.9},
    "deep page, sort acc": {"sort": "acc", "after": 0.9},
    "deep page of all versions": {"all_versions": True, "after": 0.9},
}  # fmt: skip
LOOKUPS = {
    "name": "team-{team:02d}/support-{index:06d}",
    "name@1": "team-{team:02d}/support-{index:06d}@1",
    "name:production": "team-{team:02d}/support-{index:06d}:production",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--plans", action="store_true")
    options = parser.parse_args()
    folder = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="adapters-bench-")
    with folder as place:
        stores = {shape: store(Path(place), *shape) for shape in (SMALL, *SHAPES)}
        if options.plans:
            for name, asked in PAGES.items():
                print_plans(name, *(page(stores[shape], shape, asked) for shape in SHAPES))
            return
        sizes = " and ".join(f"{adapters:,} adapters × {versions}" for adapters, versions in SHAPES)
        print_machine("Search and look-up", {"catalogs": sizes, "rounds": options.rounds})
        pages(stores, options.rounds)
        lookups(stores, options.rounds)
        commands(stores, options.rounds)
        print(f"* peak memory of the process that asked all of this: {mebibytes(own_peak())}")


def store(place: Path, adapters: int, versions: int) -> Path:
    root = place / f"{adapters}x{versions}"
    if not (root / "catalog.db").exists():
        print(f"building {adapters:,} × {versions} …", file=sys.stderr, flush=True)
        build(root / "catalog.part", adapters=adapters, versions=versions)
        (root / "catalog.part").rename(root / "catalog.db")
    return root


def pages(stores: dict[tuple[int, int], Path], rounds: int) -> None:
    asked = {
        (name, shape): page(stores[shape], shape, asked) for name, asked in PAGES.items() for shape in SHAPES
    }
    counts = {key: len(ask()) for key, ask in asked.items()}
    found = race({key: inside(ask) for key, ask in asked.items()}, rounds=rounds)
    rows, worst = [], 0.0
    for name in PAGES:
        series = [found[name, shape] for shape in SHAPES]
        slowest = max(each.median for each in series)
        worst = max(worst, slowest)
        cells = [
            cell
            for shape, each in zip(SHAPES, series, strict=True)
            for cell in (str(counts[name, shape]), milliseconds(each.median), milliseconds(each.cpu), per_cent(each.spread))
        ]
        rows.append((name, *cells, verdict(slowest, PAGE_TARGET)))
    heads = [head for adapters, versions in SHAPES for head in ("rows", f"{adapters:,} × {versions}", "CPU", "spread")]
    print_table(["page", *heads, "≤ 50 ms"], rows)
    print(f"* slowest page: {milliseconds(worst)}\n", flush=True)


def page(root: Path, shape: tuple[int, int], asked: dict[str, Any]) -> Callable[[], Any]:
    registry = connect(root)
    wanted = dict(asked)
    if "after" in wanted:
        wanted["after"] = row_at(registry, shape, wanted.pop("after"), wanted)
    return lambda: registry.list(**wanted)


def row_at(registry: Registry, shape: tuple[int, int], share: float, asked: dict[str, Any]) -> str:
    """Near the end of the list in its order: some row that is in it."""
    adapters, _ = shape
    reverse = registry.list(**asked, reverse=True, limit=max(50, min(1000, int(adapters * (1 - share)))))
    return reverse[-1].reference


def lookups(stores: dict[tuple[int, int], Path], rounds: int) -> None:
    """Each sample is 50 different adapters, asked one after another."""
    indices = range(3, 503, 10)  # those that have an alias
    contestants = {}
    for name, form in LOOKUPS.items():
        for shape, root in stores.items():
            registry = connect(root)
            references = [registry.reference(form.format(team=index % 50, index=index)) for index in indices]
            contestants[name, shape] = inside(
                lambda catalog=registry.catalog, wanted=references: [catalog.resolve(each) for each in wanted]
            )
    found = race(contestants, rounds=max(rounds, 9))
    rows = []
    for name in LOOKUPS:
        small = found[name, SMALL].median / len(indices)
        large = [found[name, shape].median / len(indices) for shape in SHAPES]
        ratio = max(large) / small
        cells = (milliseconds(each) for each in (small, *large))
        rows.append((name, *cells, f"{ratio:.2f}×", f"≤ {FLAT_TARGET}×: {verdict(ratio, FLAT_TARGET)}"))
    heads = [f"{adapters:,} × {versions}" for adapters, versions in stores]
    print_table(["look-up, cold connection", *heads, "largest of smallest", "target"], rows)


def commands(stores: dict[tuple[int, int], Path], rounds: int) -> None:
    words = ("list", "--base", COMMON_BASE, "--rank", "8..32")
    large = {"ADAPTERS_REGISTRY": str(stores[SHAPES[1]])}
    found = race(
        {
            "adapters list, empty registry": command(ADAPTERS, "list", ADAPTERS_REGISTRY=str(stores[SMALL] / "none")),
            f"adapters {' '.join(words)}": command(ADAPTERS, *words, **large),
            "… --metric 'acc>=0.8' --sort acc": command(ADAPTERS, *words, "--metric", "acc>=0.8", "--sort", "acc", **large),
        },
        rounds=rounds,
    )
    rows = [
        (name, milliseconds(each.median), per_cent(each.spread), milliseconds(each.cpu), mebibytes(each.peak))
        for name, each in found.items()
    ]
    print_table(["whole command, 100,000 × 1", "median", "spread", "CPU", "peak"], rows)


def print_plans(name: str, *asks: Callable[[], Any]) -> None:
    """SQLite's own words for the statement that finds the rows."""
    print(f"### {name}\n")
    for ask in asks:
        seen: list[str] = []

        def note(
            connection: Connection, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool, seen: list[str] = seen
        ) -> None:
            if statement.startswith("SELECT version.id") and "LIMIT" in statement and "EXPLAIN" not in statement:
                cursor = connection.connection.cursor()
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                seen.extend(row[3] for row in cursor.fetchall())

        event.listen(_engine_of(ask), "before_cursor_execute", note)
        ask()
        event.remove(_engine_of(ask), "before_cursor_execute", note)
        print("; ".join(seen))
    print(flush=True)


def _engine_of(ask: Callable[[], Any]) -> Any:
    registry = next(cell.cell_contents for cell in ask.__closure__ or () if isinstance(cell.cell_contents, Registry))
    return registry.catalog._engine


if __name__ == "__main__":
    main()
