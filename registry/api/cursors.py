"""Where a page ended: opaque to clients, and no way to learn of what they may not see."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.domain.access import Action
from registry.domain.names import Reference
from registry.errors import InvalidInputError, InvalidNameError

if TYPE_CHECKING:
    from registry.api.callers import Caller


@dataclass(frozen=True, slots=True)
class Cursor:
    reference: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.reference.encode()).decode().rstrip("=")

    @staticmethod
    def parse(text: str, caller: Caller) -> str:
        """The reference of the last row. Raises InvalidInputError for what no page of this caller ended with."""
        try:
            padded = text + "=" * (-len(text) % 4)
            reference = Reference.parse(base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode())
            if reference.adapter is None or not caller.may(Action.READ, reference.adapter):
                raise ValueError(text)
        except (binascii.Error, ValueError, InvalidNameError):
            raise InvalidInputError(
                f"{text!r:.80} is no cursor", code="invalid-cursor", hint="give `next` of the page before, as it was"
            ) from None
        return str(reference)
