"""The registry against a model of dictionaries: whatever the order of pushes, moves, labels, yanks, deletions, collections
and rebuilds, both say the same, each change is one audit entry, and the doctor finds nothing."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.connect import connect
from registry.errors import AliasMovedError, ConflictError, InvalidInputError, NotFoundError
from tests.catalog.conftest import migrated_file
from tests.conftest import lora_tensors
from tests.operations.adapters import write

NAMES = st.sampled_from(["one", "team/Two"])
CONTENTS = st.integers(0, 3)
ALIASES = st.sampled_from(["production", "staging"])
NUMBERS = st.integers(1, 5)
KEYS = st.sampled_from(["k", "l"])
VALUES = st.sampled_from(["v", "w"])


@dataclass
class Line:
    """One adapter: number → content; what is gone or hidden; pointers, labels and scores."""

    versions: dict[int, int] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    yanked: set[int] = field(default_factory=set)
    aliases: dict[str, int] = field(default_factory=dict)
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    scores: dict[int, list[float]] = field(default_factory=dict)

    @property
    def live(self) -> dict[int, int]:
        return {number: content for number, content in self.versions.items() if number not in self.deleted}


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.model = {"one": Line(), "team/Two": Line()}
        self.entries = 0

    @initialize()
    def start(self) -> None:
        (self.root / "registry").mkdir()
        migrated_file(self.root / "registry" / "catalog.db")
        self.registry = connect(self.root / "registry")

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            self.the_newest_are_listed()
            assert self.registry.doctor(deep=True).problems == ()
        shutil.rmtree(self.root)

    @rule(name=NAMES, content=CONTENTS, alias=st.none() | ALIASES)
    def push(self, name: str, content: int, alias: str | None) -> None:
        line = self.model[name]
        pushed = self.registry.push(self._directory(content), name=name.upper(), alias=alias or ())
        known = next((number for number, what in line.live.items() if what == content), None)
        assert pushed.created is (known is None)
        number = known if known is not None else len(line.versions) + 1
        assert pushed.version.number == number
        line.versions[number] = content
        self.entries += known is None
        if alias is not None:
            self.entries += line.aliases.get(alias) != number
            line.aliases[alias] = number

    @rule(name=NAMES)
    def push_what_is_refused(self, name: str) -> None:
        directory = self.root / "refused"
        if not directory.exists():
            write(directory, r=3)
        try:
            self.registry.push(directory, name=name, alias="production", tags={"k": "v"})
            raise AssertionError("not refused")
        except InvalidInputError as error:
            assert error.code == "rank-mismatch"

    @rule(name=NAMES, alias=ALIASES, to=NUMBERS, expected=st.none() | NUMBERS)
    def move_alias(self, name: str, alias: str, to: int, expected: int | None) -> None:
        line = self.model[name]
        try:
            moved = self.registry.set_alias(name, alias, to, expected=expected)
        except AliasMovedError as error:
            assert error.actual == line.aliases.get(alias) != expected
        except NotFoundError:
            assert to not in line.live
        else:
            assert line.aliases.get(alias) == expected
            assert to in line.live
            assert (moved is None) == (to == expected)
            self.entries += to != expected
            line.aliases[alias] = to

    @rule(name=NAMES, alias=ALIASES)
    def remove_alias(self, name: str, alias: str) -> None:
        aliases = self.model[name].aliases
        try:
            self.registry.remove_alias(name, alias)
        except NotFoundError:
            assert alias not in aliases
        else:
            del aliases[alias]
            self.entries += 1

    @rule(name=NAMES, number=NUMBERS, key=KEYS, value=st.none() | VALUES)
    def label(self, name: str, number: int, key: str, value: str | None) -> None:
        tags = self.model[name].tags.get(number, {})
        try:
            if value is None:
                self.registry.remove_tags(f"{name}@{number}", key)
            else:
                self.registry.set_tags(f"{name}@{number}", {key: value})
        except NotFoundError:
            assert number not in self.model[name].live or (value is None and key not in tags)
        else:
            self.entries += tags.get(key) != value
            changed = {**tags, key: value} if value is not None else {each: tags[each] for each in tags if each != key}
            self.model[name].tags[number] = changed

    @rule(name=NAMES, number=NUMBERS, back=st.booleans())
    def yank(self, name: str, number: int, back: bool) -> None:
        line = self.model[name]
        try:
            if back:
                self.registry.unyank(f"{name}@{number}")
            else:
                self.registry.yank(f"{name}@{number}", "because")
        except NotFoundError:
            assert number not in line.live
        else:
            self.entries += (number in line.yanked) == back
            (line.yanked.discard if back else line.yanked.add)(number)

    @rule(name=NAMES, number=NUMBERS)
    def delete(self, name: str, number: int) -> None:
        line = self.model[name]
        try:
            self.registry.delete(f"{name}@{number}", "because")
        except ConflictError:
            assert number in line.aliases.values()
        except NotFoundError:
            assert number not in line.live
        else:
            assert number in line.live
            line.deleted.add(number)
            self.entries += 1

    @rule(name=NAMES, number=NUMBERS, value=st.floats(0, 1))
    def measure(self, name: str, number: int, value: float) -> None:
        line = self.model[name]
        try:
            self.registry.add_evaluations(f"{name}@{number}", f"acc={value!r}")
        except NotFoundError:
            assert number not in line.live
        else:
            line.scores.setdefault(number, []).append(value)
            self.entries += 1

    @rule(grace=st.sampled_from([0.0, 3600.0]))
    def collect(self, grace: float) -> None:
        before = self.registry.doctor().unreferenced
        taken = len(self.registry.gc(grace=grace).blobs)
        assert taken == (before if grace == 0 else 0)
        self.entries += taken > 0

    @precondition(lambda self: self.entries)
    @rule()
    def lose_and_rebuild(self) -> None:
        (self.root / "registry" / "catalog.db").unlink()
        self.registry = connect(self.root / "registry")
        assert self.registry.rebuild() == self.entries

    @rule()
    def come_back(self) -> None:
        self.registry = connect(self.root / "registry")

    @rule(name=NAMES, number=NUMBERS)
    def pull(self, name: str, number: int) -> None:
        line, out = self.model[name], self.root / "out"
        try:
            self.registry.pull(f"{name}@{number}", out)
        except NotFoundError:
            assert number not in line.live
        else:
            pushed = self._directory(line.live[number])
            for path in pushed.iterdir():
                assert (out / path.name).read_bytes() == path.read_bytes()
            shutil.rmtree(out)
        assert not out.exists()

    @rule()
    def the_newest_are_listed(self) -> None:
        newest = {
            f"{AT[name]}@{max(visible)}" for name, line in self.model.items() if (visible := set(line.live) - line.yanked)
        }
        assert {version.reference.lower() for version in self.registry.list(limit=1000)} == newest

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "registry"):
            return
        assert len(self.registry.log()) == self.entries
        found = {version.reference.lower(): version for version in self.registry.list(all_versions=True, limit=1000)}
        expected = {f"{AT[name]}@{number}": (line, number) for name, line in self.model.items() for number in line.live}
        assert set(found) == set(expected)
        for reference, (line, number) in expected.items():
            version = found[reference]
            assert (version.yanked is not None) == (number in line.yanked)
            assert set(version.aliases) == {alias for alias, to in line.aliases.items() if to == number}
            assert version.tags == line.tags.get(number, {})
            scores = line.scores.get(number)
            assert (version.score.value if version.score else None) == (scores[-1] if scores else None)

    def _directory(self, content: int) -> Path:
        directory = self.root / f"adapter-{content}"
        return directory if directory.exists() else write(directory, lora_tensors(value=content + 1.0))


AT = {"one": "local/one", "team/Two": "team/two"}
TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
