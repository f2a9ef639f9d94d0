"""``--for ENGINE[==VERSION]`` and ``--max-lora-rank``, as the commands that take them understand them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer import BadParameter

from cli.exits import usage

if TYPE_CHECKING:
    from registry.checks.profile import Profile


def profile_called(serve: str | None, max_lora_rank: int | None) -> Profile | None:
    """The profile that is meant, None for no engine. One that does not exist is wrong usage, whatever is to be written."""
    from registry.checks.profile import find_profile, with_rank_cap

    if serve is None:
        if max_lora_rank is not None:
            raise BadParameter("--max-lora-rank is the limit of an engine: name it with --for")
        return None
    with usage():
        profile = find_profile(serve)
        return profile if max_lora_rank is None else with_rank_cap(profile, max_lora_rank)
