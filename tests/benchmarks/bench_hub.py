"""Pull and push through the Hub's protocol: ``python -m tests.benchmarks.bench_hub [MB]``.

A weights file is pulled from the server and from two servers of static files, turn by turn, and pushed by the installed client
(Xet), by the same without Xet (Git-LFS) and by the last client before 1.0. The pull must reach 90 % of static files served by the
same kind of server; the other, a blocking thread a request, is what one core can copy.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from registry.connect import connect
from tests.conftest import safetensors_bytes
from tests.hub_protocol.conftest import write_one
from tests.hub_protocol.running import CLIENTS, INSTALLED, Server, run_client, serving

REPEATS = 7
LEAST = 0.9
WEIGHTS = "adapter_model.safetensors"
STATIC = """
import sys, uvicorn
from starlette.staticfiles import StaticFiles
uvicorn.run(StaticFiles(directory=sys.argv[1]), port=int(sys.argv[2]), log_config=None, access_log=False)
"""
PUSH = """
import sys, time
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[2])
start = time.perf_counter()
api.upload_folder(repo_id=sys.argv[2], folder_path=sys.argv[1])
print(time.perf_counter() - start)
"""


def write(directory: Path, size: int, seed: int) -> None:
    """Finite numbers of every kind, so that nothing is saved by packing them."""
    width = size // 16
    noise = bytearray(os.urandom(8 * width))
    noise[3::4] = bytes([63 - seed]) * (2 * width)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": ("F32", (2, width), bytes(noise)),
        f"{module}.lora_B.weight": ("F32", (width, 2), bytes(noise)),
    }
    (directory / WEIGHTS).write_bytes(safetensors_bytes(tensors))


@contextmanager
def static(*command: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def pull(host: str, path: str, size: int, token: str | None = None) -> float:
    """Megabytes a second."""
    connection = http.client.HTTPConnection(host, timeout=60)
    start = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    response = connection.getresponse()
    buffer, count = bytearray(1 << 20), 0
    while read := response.readinto(buffer):
        count += read
    assert (response.status, count) == (200, size)
    connection.close()
    return size / (time.perf_counter() - start) / 1e6


def pulls(server: Server, directory: Path, commit: str) -> bool:
    size = (directory / WEIGHTS).stat().st_size
    own = f"/team/pulled/resolve/{commit}/{WEIGHTS}"
    with (
        static(sys.executable, "-c", STATIC, str(directory)) as starlette,
        static(sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(directory)) as plain,
    ):
        places = {
            "this server": (server.address.removeprefix("http://"), own, server.tokens["writer"]),
            "Starlette's static files": (starlette, f"/{WEIGHTS}", None),
            "Python's http.server": (plain, f"/{WEIGHTS}", None),
        }
        speeds: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(REPEATS):
            for name, (host, path, token) in places.items():
                speeds[name].append(pull(host, path, size, token))
    found = {name: median(values) for name, values in speeds.items()}
    for name, speed in found.items():
        print(f"pull from {name}: {speed:,.0f} MB/s")
    return found["this server"] >= LEAST * found["Starlette's static files"]


def pushes(server: Server, work: Path, size: int) -> None:
    ways = [(INSTALLED, {}, "Xet"), (INSTALLED, {"HF_HUB_DISABLE_XET": "1"}, "Git-LFS"), ("0.36.2", {}, "Git-LFS")]
    for number, (version, environment, way) in enumerate(ways, 1):
        if version != INSTALLED and not (CLIENTS / version).is_dir():
            continue
        directory = work / f"push{number}"
        write_one(directory)
        write(directory, size, number)
        home = work / f"home{number}"
        done = run_client(server, home, "-c", PUSH, str(directory), f"team/pushed{number}", version=version, **environment)
        assert done.returncode == 0, done.stderr
        print(f"push of {size / 1e6:,.0f} MB by client {version} ({way}): {float(done.stdout):.2f} s")


def main(megabytes: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        directory = write_one(work / "pulled")
        write(directory, megabytes * 1_000_000, 0)
        pushed = connect(work / "store", namespace="team").push(directory, name="pulled")
        with serving(work / "store") as server:
            fast = pulls(server, directory, pushed.version.digest.hex[:40])
            pushes(server, work, megabytes * 1_000_000)
    if not fast:
        print(f"the pull is below {LEAST:.0%} of a static server")
    return 0 if fast else 1


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
