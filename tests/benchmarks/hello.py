"""The least that FastAPI can do for a request: the yardstick of ``bench_serve``."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}
