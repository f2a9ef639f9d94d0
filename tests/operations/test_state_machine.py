"""The registry against a model of dictionaries: whatever the order of pushes, moves, yanks, deletions, collections and
rebuilds, both say the same, and the doctor finds nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.connect import connect
from registry.errors import AliasMovedError, ConflictError, NotFoundError
from tests.conftest import CONFIG, floats, safetensors_bytes

NAMES = st.sampled_from(["one", "two"])
CONTENTS = st.integers(0, 3)
ALIASES = st.sampled_from(["production", "staging"])
NUMBERS = st.integers(1, 6)


@dataclass
class Line:
    """One adapter: number → content; what is gone or hidden; pointers; scores."""

    versions: dict[int, int] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    yanked: set[int] = field(default_factory=set)
    aliases: dict[str, int] = field(default_factory=dict)
    scores: dict[int, list[float]] = field(default_factory=dict)

    @property
    def live(self) -> dict[int, int]:
        return {number: content for number, content in self.versions.items() if number not in self.deleted}


class RegistryMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.registry = connect(self.root / "registry")
        self.model: dict[str, Line] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            assert self.registry.doctor(deep=True).problems == ()
            shutil.rmtree(self.root)

    @rule(name=NAMES, content=CONTENTS)
    def push(self, name: str, content: int) -> None:
        line = self.model.setdefault(name, Line())
        pushed = self.registry.push(self._directory(content), name=name)
        known = next((number for number, what in line.live.items() if what == content), None)
        assert pushed.created is (known is None)
        number = known if known is not None else len(line.versions) + 1
        assert pushed.version.number == number
        line.versions[number] = content

    @rule(name=NAMES, alias=ALIASES, to=NUMBERS, expected=st.none() | NUMBERS)
    def move_alias(self, name: str, alias: str, to: int, expected: int | None) -> None:
        line = self.model.get(name, Line())
        try:
            self.registry.set_alias(name, alias, to, expected=expected)
            assert line.aliases.get(alias) == expected
            assert to in line.live
            line.aliases[alias] = to
        except AliasMovedError:
            assert line.aliases.get(alias) != expected
        except NotFoundError:
            assert to not in line.live

    @rule(name=NAMES, alias=ALIASES)
    def remove_alias(self, name: str, alias: str) -> None:
        aliases = self.model.get(name, Line()).aliases
        try:
            self.registry.remove_alias(name, alias)
            del aliases[alias]
        except NotFoundError:
            assert alias not in aliases

    @rule(name=NAMES, number=NUMBERS, back=st.booleans())
    def yank(self, name: str, number: int, back: bool) -> None:
        line = self.model.get(name, Line())
        try:
            if back:
                self.registry.unyank(f"{name}@{number}")
                line.yanked.discard(number)
            else:
                self.registry.yank(f"{name}@{number}", "because")
                line.yanked.add(number)
            assert number in line.live
        except NotFoundError:
            assert number not in line.live

    @rule(name=NAMES, number=NUMBERS)
    def delete(self, name: str, number: int) -> None:
        line = self.model.get(name, Line())
        try:
            self.registry.delete(f"{name}@{number}", "because")
            assert number in line.live
            line.deleted.add(number)
            line.scores.pop(number, None)
        except ConflictError:
            assert number in line.aliases.values()
        except NotFoundError:
            assert number not in line.live

    @rule(name=NAMES, number=NUMBERS, value=st.floats(0, 1))
    def measure(self, name: str, number: int, value: float) -> None:
        line = self.model.get(name, Line())
        try:
            self.registry.add_evaluations(f"{name}@{number}", f"acc={value!r}")
            line.scores.setdefault(number, []).append(value)
        except NotFoundError:
            assert number not in line.live

    @precondition(lambda self: self.model)
    @rule()
    def collect(self) -> None:
        self.registry.gc(grace=0)
        assert self.registry.doctor().unreferenced == 0

    @precondition(lambda self: self.model)
    @rule()
    def lose_and_rebuild(self) -> None:
        (self.root / "registry" / "catalog.db").unlink()
        self.registry = connect(self.root / "registry")
        self.registry.rebuild()

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "registry"):
            return
        found = {version.reference: version for version in self.registry.list(all_versions=True, limit=1000)}
        expected = {f"local/{name}@{number}": (line, number) for name, line in self.model.items() for number in line.live}
        assert set(found) == set(expected)
        for reference, (line, number) in expected.items():
            version = found[reference]
            assert (version.yanked is not None) == (number in line.yanked)
            assert set(version.aliases) == {alias for alias, to in line.aliases.items() if to == number}
            scores = line.scores.get(number)
            assert (version.score.value if version.score else None) == (scores[-1] if scores else None)
        newest = {
            f"local/{name}@{max(visible)}"
            for name, line in self.model.items()
            if (visible := set(line.live) - line.yanked)
        }
        assert {version.reference for version in self.registry.list(limit=1000)} == newest

    def _directory(self, content: int) -> Path:
        directory = self.root / f"adapter-{content}"
        if not directory.exists():
            directory.mkdir()
            (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
            prefix = "base_model.model.q_proj"
            tensors = {
                f"{prefix}.lora_A.weight": ("F32", (2, 3), floats(float(content + 1), count=6)),
                f"{prefix}.lora_B.weight": ("F32", (3, 2), floats(1.0, count=6)),
            }
            (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
        return directory


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
