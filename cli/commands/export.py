"""``adapters export``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.context import Session
from cli.engines import profile_called
from cli.rendering import emit, say, warn


def export(
    session: Session,
    subject: Annotated[str, Argument(metavar="REF|DIR", help="A version in the registry, or an adapter's directory.")],
    serve: Annotated[
        str, Option("--for", metavar="ENGINE[==VERSION]", help="Who is to load it: vllm, llama.cpp, peft, sglang, …")
    ],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")],
    base: Annotated[
        str | None,
        Option(
            metavar="DIR|ID", help="The base model: a checkpoint's directory, or the name to write into the config."
        ),
    ] = None,
    max_lora_rank: Annotated[
        int | None, Option(metavar="N", help="The engine's own limit, if not its default.")
    ] = None,
) -> None:
    """Write a copy for an engine, proven equal; or nothing.

    The engine serves it as PEFT serves the original.

    Scales that the engine does not read are folded into lora_B, ranks are padded, copies of the base's embeddings are
    left out (if --base DIR shows that they are the base's own). Without a version the most limited one is meant.
    The copy is a PEFT adapter: for llama.cpp, convert it with convert_lora_to_gguf.py.

    Exit code 6: no faithful copy exists, and nothing was written.

    Example: adapters export my-lora:production --for vllm -o ./served
    """
    profile_called(serve, max_lora_rank)
    done = session.registry.export(subject, output, engine=serve, base=base, max_lora_rank=max_lora_rank)
    if session.json:
        emit(done.document())
        return
    for change in done.changes:
        say(f"{change.what} [{change.rule}]")
    warn(done.findings, quiet=session.quiet)
    equal = "equal" if done.largest_error == 0 else f"equal to {done.largest_error:.1e} of each delta's norm"
    say(f"{done.subject} → {output} for {done.profile}: {equal}{'' if done.changes else ', nothing had to change'}")
