"""A scene: a registry in some state, one act on it, and what may be true afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.connect import connect
from tests.conftest import CONFIG, lora_tensors, safetensors_bytes
from tests.faults.acts import NAME
from tests.faults.server import Job, Outcome, Server
from tests.faults.shim import MUTATING, Call, Fault, read_trace

#: Directories to push, by a letter. E is an adapter of five files.
CONTENTS = "ABCDE"


def write_contents(into: Path) -> dict[str, Path]:
    found = {}
    for position, letter in enumerate(CONTENTS):
        directory = found[letter] = into / f"content-{letter}"
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
        data = safetensors_bytes(lora_tensors(width=64 if letter == "E" else 16, value=float(position)))
        (directory / "adapter_model.safetensors").write_bytes(data)
    (found["E"] / "README.md").write_text("---\nlibrary_name: peft\n---\nFive files.\n")
    (found["E"] / "tokenizer_config.json").write_text("{}")
    (found["E"] / "special_tokens_map.json").write_text("{}")
    return found


@dataclass(frozen=True, slots=True)
class Scene:
    """``before`` are the acknowledged versions, reference → letter of its content; ``adds`` what the act may make visible.

    ``arguments`` is a template: ``{work}``, ``{registry}`` and ``{A}`` … are filled in.
    """

    name: str
    act: str
    arguments: Mapping[str, Any]
    before: Mapping[str, str] = field(default_factory=dict)
    adds: Mapping[str, str] = field(default_factory=dict)
    orphans: str = ""  #: contents whose version was deleted: blobs for a collector
    alias: tuple[int | None, int | None] = (None, None)  #: where ``production`` points before and after

    def __str__(self) -> str:
        return self.name


FIRST = Scene(
    "first push", "push", {"directory": "{E}", "name": NAME, "alias": ["production"]},
    adds={f"{NAME}@1": "E"}, alias=(None, 1),
)  # fmt: skip
SECOND = Scene(
    "second push", "push", {"directory": "{E}", "name": NAME, "alias": ["production"]},
    before={f"{NAME}@1": "A"}, adds={f"{NAME}@2": "E"}, alias=(1, 2),
)  # fmt: skip
AGAIN = Scene(
    "same push again", "push", {"directory": "{A}", "name": NAME, "alias": ["production"]},
    before={f"{NAME}@1": "A", f"{NAME}@2": "B"}, alias=(2, 1),
)  # fmt: skip
PULL = Scene(
    "pull", "pull", {"reference": f"{NAME}@2", "into": "{work}/out/back"},
    before={f"{NAME}@1": "A", f"{NAME}@2": "E"},
)  # fmt: skip
COLLECT = Scene("gc", "gc", {"grace": 0}, before={f"{NAME}@1": "A"}, orphans="BE")
ALIAS = Scene(
    "alias set", "alias", {"name": NAME, "alias": "production", "version": 2},
    before={f"{NAME}@1": "A", f"{NAME}@2": "B"}, alias=(1, 2),
)  # fmt: skip
SCENES = (FIRST, SECOND, AGAIN, PULL, COLLECT, ALIAS)


class Stage:
    """Builds each scene's registry once, and gives every point a copy of it."""

    def __init__(self, root: Path, server: Server, contents: Mapping[str, Path]) -> None:
        self._root = root
        self._server = server
        self._count = 0
        self.contents = contents
        store = connect(root / "digests")
        #: The digest of each content's manifest, which names every byte of it.
        self.digests = {letter: store.push(content, name=NAME).version.digest for letter, content in contents.items()}

    def set_up(self, scene: Scene) -> Path:
        """A directory of its own, with ``registry`` in the state before."""
        original = self._root / f"scene {scene}"
        if not original.exists():
            self._build(scene, original)
        self._count += 1
        work = self._root / f"work-{self._count}"
        shutil.copytree(original, work)
        return work

    def job(self, scene: Scene, work: Path, **options: Any) -> Job:
        values = {"work": work, "registry": work / "registry", **self.contents}
        filled = {
            key: value.format_map(values) if isinstance(value, str) else value for key, value in scene.arguments.items()
        }
        return Job(scene.act, {"registry": str(work / "registry"), **filled}, work, **options)

    def play(self, scene: Scene, fault: Fault | None = None, **options: Any) -> tuple[Path, Outcome]:
        work = self.set_up(scene)
        return work, self.play_on(work, scene, fault, **options)

    def play_on(self, work: Path, scene: Scene, fault: Fault | None = None, **options: Any) -> Outcome:
        return self._server.run(self.job(scene, work, fault=fault, **options))

    def calls(self, scene: Scene, kinds: str = MUTATING, *, plant: str | None = None, only: str = "") -> list[Call]:
        """Every call that counts while nothing is broken."""
        return [call for call in self.trace(scene, kinds, plant=plant, only=only)[1] if call.number]

    def trace(
        self, scene: Scene, kinds: str = MUTATING, *, plant: str | None = None, only: str = ""
    ) -> tuple[Path, list[Call]]:
        work = self.set_up(scene)
        lines = work.with_name(work.name + ".trace")
        fault = Fault("nothing", 0, kinds=kinds, only=only)
        outcome = self._server.run(self.job(scene, work, fault=fault, trace=lines, plant=plant))
        assert outcome.answer is not None, outcome
        calls = read_trace(lines)
        return work, calls

    def _build(self, scene: Scene, original: Path) -> None:
        original.mkdir()
        (original / "out").mkdir()
        store = connect(original / "registry", actor="tester")
        for reference, letter in scene.before.items():
            assert store.push(self.contents[letter], name=NAME).version.reference == reference
        for letter in scene.orphans:
            store.delete(store.push(self.contents[letter], name=NAME).version.reference, "an orphan")
        if scene.alias[0] is not None:
            store.set_alias(NAME, "production", scene.alias[0])


def sample(calls: list[Call], count: int, *, everything: bool) -> list[int]:
    """Numbers of at most ``count`` calls: first of each sort of call at each sort of place, then evenly among the rest."""
    numbers = [call.number for call in calls]
    if everything or len(numbers) <= count:
        return numbers
    firsts: dict[tuple[str, str], int] = {}
    for call in calls:
        firsts.setdefault((call.name, _place(call)), call.number)
    chosen = list(firsts.values())[:count]
    rest = [number for number in numbers if number not in set(chosen)]
    wanted = count - len(chosen)
    chosen += [rest[position * len(rest) // wanted] for position in range(wanted)]
    return sorted(chosen)


def _place(call: Call) -> str:
    path = Path(call.second or call.path)
    return f"{path.parent.parent.name}/{path.suffix}" if path.suffix else path.parent.parent.name
