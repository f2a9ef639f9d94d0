"""The verbs that need tensors, as methods of a registry; and the lazy doors to torch, one for each.

A door is opened by the verb that needs it, so whoever only describes, stores and finds never imports torch, nor needs it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import sep
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from registry.disk import path_of
from registry.domain.lineage import finite_weight
from registry.errors import InvalidInputError, InvalidValueError, UnavailableError
from registry.verbs.store import Store

if TYPE_CHECKING:
    from registry.domain.names import Reference
    from registry.operations.combine import Workshop as CombineWorkshop
    from registry.operations.combined import Combined, CombineRequest
    from registry.operations.equal_copy import Workshop as ExportWorkshop
    from registry.operations.export import Exported
    from registry.operations.extract import Extraction
    from registry.operations.ingredients import Found
    from registry.operations.inspect import Difference, Inspected, Interference
    from registry.operations.inspect import Workshop as InspectWorkshop
    from registry.operations.merge import Merged
    from registry.operations.merge_prepare import MergeRequest, Prepared
    from registry.operations.merge_prepare import Workshop as MergeWorkshop
    from registry.operations.search import Search, Searched
    from registry.operations.verify import Verification
    from registry.plans.combining import Method
    from registry.plans.merge_plan import MergeOptions

T = TypeVar("T")


class TensorVerbs(Store):
    """What merges, combines and looks at weights."""

    __slots__ = ()

    def export(
        self,
        subject: str | Path,
        into: str | Path,
        *,
        engine: str,
        base: str | None = None,
        max_lora_rank: int | None = None,
    ) -> Exported:
        """Write a copy of a version, or of a directory (a Path, or a text that looks like one), that ``engine``
        (``vllm``, ``llama.cpp==b6000``) serves as PEFT serves the original. ``base`` is a checkpoint's directory or the
        ID to write. Raises RejectedError with nothing written where no faithful copy exists."""
        from registry.checks.profile import find_profile, with_rank_cap
        from registry.operations.bases import is_path
        from registry.operations.export import export

        profile = find_profile(engine)
        text = str(subject)
        return export(
            path_of(text) if isinstance(subject, Path) or is_path(text) else self.reference(text),
            Path(into),
            profile=profile if max_lora_rank is None else with_rank_cap(profile, max_lora_rank),
            base=base,
            blobs=self.blobs,
            catalog=self.catalog,
            workshop=_export_workshop,
        )

    def merge(
        self,
        base: str | Path,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        into: str | Path,
        *,
        options: MergeOptions | None = None,
        device: str = "auto",
        resume: bool = False,
        name: str | None = None,
        expect: Callable[[int], None] = lambda _total: None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Merged:
        """Fold adapters into a base: a checkpoint in ``into``. Each is a directory, a reference or ``hf://OWNER/NAME@REV``, alone
        or with its weight. With ``name`` the checkpoint is also stored here, with its lineage. ``expect`` hears how many
        bytes there will be, ``progress`` of each that is written.

        Raises RejectedError with every reason against it, and nothing written."""
        from registry.operations.merge import merge, stored

        adapter = self.adapter(name) if name is not None else None
        request = self._merge_request(base, adapters, options, device, resume=resume)
        shelf = self.shelf()
        done = merge(
            request, Path(into), shelf=shelf, workshop=_ahead(_merge_workshop), expect=expect, progress=progress
        )
        return done if adapter is None else stored(done, adapter, shelf)

    def merge_plan(
        self,
        base: str | Path,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        *,
        options: MergeOptions | None = None,
        device: str = "auto",
    ) -> Prepared:
        """What :meth:`merge` would do, from headers alone."""
        from registry.operations.merge_prepare import prepare

        request = self._merge_request(base, adapters, options, device)
        with prepare(request, shelf=self.shelf(), workshop=_ahead(_merge_workshop)) as prepared:
            return prepared

    def verify(
        self,
        output: str | Path,
        base: str | Path,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        *,
        options: MergeOptions | None = None,
        whole: bool = False,
        samples: int | None = None,
    ) -> Verification:
        """Hold a merged checkpoint against base and adapters: ``samples`` pieces of each tensor, spread evenly, or the
        ``whole``."""
        from registry.operations.verify import SAMPLES, verify

        request = self._merge_request(base, adapters, options, "cpu")
        if samples is not None and samples < 1:
            raise InvalidValueError("number of samples", str(samples), "1 or more")
        pieces = None if whole else samples or SAMPLES
        return verify(Path(output), request, samples=pieces, shelf=self.shelf(), workshop=_ahead(_merge_workshop))

    def combine(
        self,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        into: str | Path | None = None,
        *,
        name: str | None = None,
        method: str = "linear",
        rank: int | None = None,
        energy: float | None = None,
        density: float = 0.5,
        seed: int = 0,
        dtype: str | None = None,
        kind: str = "combined-from",
        max_bytes: int | None = None,
        foresee: Callable[[Interference], None] | None = None,
    ) -> Combined:
        """Adapters as one adapter, in ``into``, as the next version of ``name``, or both: the weighted sum, or another
        ``method`` of :data:`registry.plans.combining.METHODS`.

        The sum is exact unless ``rank`` or ``energy`` (a share of Σσ²) say how much to keep of each layer, or ``max_bytes`` how
        large the file may be. ``kind`` is what the lineage calls it. ``foresee`` hears, before anything is written, what the
        adapters do to each other. Raises InvalidInputError for what cannot be meant, and RejectedError with every reason where
        there is no sum.
        """
        from registry.operations.combine import combine
        from registry.plans.combining import Blend, Method

        how = Method(Blend(method, density, seed), rank, energy, max_bytes)
        request = self._combine_request(adapters, how, into, name, dtype, kind)

        def foreseen(found: Sequence[Found]) -> None:
            if foresee is not None:
                from registry.operations.inspect import interference_of

                foresee(interference_of(found, [weight for _, weight in request.adapters], _inspect_workshop()))

        return combine(request, shelf=self.shelf(), workshop=_combine_workshop(), foresee=foreseen)

    def search_weights(
        self,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        into: str | Path | None = None,
        *,
        wanted: Search,
        name: str | None = None,
        method: str = "linear",
        rank: int | None = None,
        energy: float | None = None,
        density: float = 0.5,
        seed: int = 0,
        dtype: str | None = None,
        max_bytes: int | None = None,
    ) -> Searched:
        """:meth:`combine` with the weights that score best, as ``wanted`` says; those given are tried first.

        Raises ScoreFailedError where nothing gets a score, and what :meth:`combine` raises."""
        from registry.operations.search import search
        from registry.plans.combining import Blend, Method

        how = Method(Blend(method, density, seed), rank, energy, max_bytes)
        request = self._combine_request(adapters, how, into, name, dtype)
        with _needs("search"):
            from registry.numerics.weight_search import explore
        return search(request, wanted, shelf=self.shelf(), workshop=_combine_workshop(), explore=explore)

    def extract(
        self,
        base: str | Path,
        tuned: str | Path,
        into: str | Path,
        *,
        rank: int,
        energy: float | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> Extraction:
        """A LoRA out of a full fine-tune: of every matrix the best part of that rank of what training added."""
        from registry.operations.extract import ExtractRequest, extract

        request = ExtractRequest(str(base), str(tuned), rank, energy, dtype or "F32", seed)
        with _needs("tensors"):
            from registry.transforms import extract as workshop
        return extract(request, Path(into), shelf=self.shelf(), workshop=workshop.extract)

    def inspect(self, subject: str | Path, *, base: str | Path | None = None) -> Inspected:
        """Spectra, norms and needed ranks of every layer of a LoRA; with ``base`` each delta's share of the weight's norm."""
        from registry.operations.inspect import inspect

        where = str(base) if base is not None else None
        return inspect(self._adapter_called(subject), base=where, shelf=self.shelf(), workshop=_inspect_workshop())

    def diff(self, one: str | Path, other: str | Path) -> Difference:
        """How two LoRAs lie to each other, layer by layer."""
        from registry.operations.inspect import diff

        ours, theirs = self._adapter_called(one), self._adapter_called(other)
        return diff(ours, theirs, shelf=self.shelf(), workshop=_inspect_workshop())

    def interference(self, adapters: Sequence[str | Path | tuple[str | Path, float]]) -> Interference:
        """What adapters do to each other when they are added with these weights."""
        from registry.operations.inspect import interference

        return interference(self._asked(adapters), shelf=self.shelf(), workshop=_inspect_workshop())

    def _merge_request(
        self,
        base: str | Path,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        options: MergeOptions | None,
        device: str,
        *,
        resume: bool = False,
    ) -> MergeRequest:
        from registry.operations.merge_prepare import MergeRequest
        from registry.plans.merge_plan import MergeOptions

        where = str(base) if isinstance(base, str) or base.is_absolute() else f".{sep}{base}"  # a Path is never a name
        return MergeRequest(where, self._asked(adapters), options or MergeOptions(), device, resume)

    def _combine_request(
        self,
        adapters: Sequence[str | Path | tuple[str | Path, float]],
        method: Method,
        into: str | Path | None,
        name: str | None,
        dtype: str | None,
        kind: str = "combined-from",
    ) -> CombineRequest:
        from registry.operations.combined import CombineRequest

        place = Path(into) if into is not None else None
        adapter = self.adapter(name) if name is not None else None
        return CombineRequest(self._asked(adapters), method, place, adapter, dtype, kind)

    def _asked(
        self, adapters: Sequence[str | Path | tuple[str | Path, float]]
    ) -> list[tuple[Path | Reference | str, float]]:
        """What is added up, each with its weight, which is 1 where none is given."""
        asked = [one if isinstance(one, tuple) else (one, 1.0) for one in adapters]
        if not asked:
            raise InvalidInputError("no adapter was given", code="no-adapter", hint="give at least one")
        return [(self._adapter_called(subject), finite_weight(weight)) for subject, weight in asked]

    def _adapter_called(self, subject: str | Path) -> Path | Reference | str:
        """A directory, a reference, or a repository of the Hub (``hf://``), which stays a text."""
        from registry.operations.bases import is_path

        text = str(subject)
        if isinstance(subject, Path) or is_path(text):
            return path_of(text)
        return text if text.startswith("hf://") else self.reference(text)


def _export_workshop() -> ExportWorkshop:
    """The lazy door to torch, for exports."""
    with _needs("tensors"):
        from registry.transforms import export
    return export


def _merge_workshop() -> MergeWorkshop:
    """The lazy door to torch, for merges."""
    from registry.operations.merge_prepare import Workshop

    with _needs("tensors"):
        from registry.transforms.merge import compare, peak_memory, same_numbers, write_merged
    return Workshop(write_merged, same_numbers, compare, peak_memory)


def _ahead(make: Callable[[], T]) -> Callable[[], T]:
    """Start at once, while files are read; who calls for it waits for what is left to do."""
    pool = ThreadPoolExecutor(1)
    made = pool.submit(make)
    pool.shutdown(wait=False)
    return made.result


def _combine_workshop() -> CombineWorkshop:
    """The lazy door to torch, for combinations."""
    from registry.operations.combine import Workshop

    with _needs("tensors"):
        from registry.transforms.combine import combine, errors, same_numbers
    return Workshop(combine, errors, same_numbers)


def _inspect_workshop() -> InspectWorkshop:
    """The lazy door to torch, for looking at deltas."""
    from registry.operations.inspect import Workshop

    with _needs("tensors"):
        from registry.transforms.inspect import conflicts, likenesses, norms_of, spectra
    return Workshop(spectra, likenesses, norms_of, conflicts)


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()  # importing allocates much and frees nothing
    try:
        yield
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"this needs {error.name}, which is not installed",
            code=f"{extra}-missing",
            hint=f"pip install 'adapter-registry[{extra}]'",
        ) from error
    finally:
        if collecting:
            gc.enable()
