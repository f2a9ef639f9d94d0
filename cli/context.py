"""What every command has: the registry it works on, and how it may speak. The only file that reads the environment."""

from __future__ import annotations

import functools
import gc
import getpass
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import ending

if TYPE_CHECKING:
    from registry.connect import Registry

_PANEL = "Everywhere"
_EVERYWHERE: dict[str, Any] = {
    "registry": Annotated[
        str | None,
        typer.Option(
            "--registry", envvar="ADAPTERS_REGISTRY", metavar="DIR|URL", rich_help_panel=_PANEL,
            help="Where the registry lies, or the address of its server (default: the user data directory).",
        ),
    ],
    "namespace": Annotated[
        str,
        typer.Option(
            "--namespace", envvar="ADAPTERS_NAMESPACE", metavar="NS", rich_help_panel=_PANEL,
            help="Namespace of names that do not say their own.",
        ),
    ],
    "json_output": Annotated[
        bool, typer.Option("--json", rich_help_panel=_PANEL, help="One JSON document on stdout, nothing else.")
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=_PANEL, help="No notes and no progress on stderr.")
    ],
}  # fmt: skip
_DEFAULTS = {"registry": None, "namespace": "local", "json_output": False, "quiet": False}

#: Options that may also stand before the command, and whether they take a value.
LEADING = {"--registry": True, "--namespace": True, "--json": False, "--quiet": False, "-q": False}


@dataclass(frozen=True)
class Session:
    location: str
    namespace: str
    json: bool
    quiet: bool

    @property
    def is_remote(self) -> bool:
        return "://" in self.location

    @property
    def actor(self) -> str:
        return _actor()

    @functools.cached_property
    def registry(self) -> Registry:
        """The lazy door to everything heavy. Importing allocates much and frees nothing: collecting meanwhile is a tenth of
        the time."""
        gc.disable()
        import logging

        from registry.connect import connect

        gc.enable()
        gc.freeze()
        if self.quiet or self.json:
            logging.getLogger("adapters.hub").setLevel(logging.ERROR)
        token = self.token if self.location.startswith(("http://", "https://")) else None
        return connect(self.location, namespace=self.namespace, actor=_actor(), token=token)

    @property
    def token(self) -> str | None:
        """For the server: from the environment, or as ``adapters login`` kept it for this very address."""
        from cli.credentials import kept_token, warn_if_overheard

        token = os.environ.get("ADAPTERS_TOKEN") or kept_token(self.location)
        if token:
            warn_if_overheard(self.location, quiet=self.quiet or self.json)
        return token


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command takes a :class:`Session` first; the options that every command has are added to its own."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "session"]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=_DEFAULTS[name])
        for name, annotation in _EVERYWHERE.items()
    ]

    def run(**values: Any) -> None:
        everywhere = {name: values.pop(name) for name in _EVERYWHERE}
        location = str(everywhere["registry"] or _default_location())
        session = Session(location, everywhere["namespace"], everywhere["json_output"], everywhere["quiet"])
        with ending(json=session.json):
            function(session, **values)

    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *common]
    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _default_location() -> str:
    from platformdirs import user_data_dir

    return os.path.join(user_data_dir("adapter-registry", appauthor=False), "registry")


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
