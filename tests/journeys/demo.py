"""``make demo``: train a small adapter on a real model, then push, find, score, promote and pull it.

Every command is printed as you would type it. Everything lies in a temporary directory.
"""

from __future__ import annotations

import filecmp
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.journeys.real_adapters import train_minilm


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="adapters-demo-") as folder:
        work = Path(folder)
        print("# Training a LoRA (r=4) of all-MiniLM-L6-v2 with PEFT, three steps …", flush=True)
        train_minilm(work / "my-lora")
        run = Runner(work)
        run("push ./my-lora --alias staging --tag language=en")
        run("list")
        run("show my-lora")
        run("eval add my-lora cosine=0.71 --task neighbours --higher-is-better --stderr 0.02 --n 200")
        run("alias set my-lora production 1")
        run("list --base sentence-transformers/all-MiniLM-L6-v2 --rank 2..8 --metric cosine>=0.7 --sort cosine")
        run("pull my-lora:production -o ./back")
        run("doctor --deep")
        names = sorted(path.name for path in (work / "my-lora").iterdir())
        same, different, missing = filecmp.cmpfiles(work / "my-lora", work / "back", names, shallow=False)
        print(f"\n# Compared byte by byte: {len(same)} of {len(names)} files are identical: {', '.join(same)}")
        return 1 if different or missing else 0


class Runner:
    def __init__(self, work: Path) -> None:
        self._work = work
        self._environment = {**os.environ, "ADAPTERS_REGISTRY": str(work / "registry")}

    def __call__(self, line: str) -> None:
        print(f"\n$ adapters {line}", flush=True)
        command = [str(Path(sys.executable).with_name("adapters")), *shlex.split(line)]
        subprocess.run(command, cwd=self._work, env=self._environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
