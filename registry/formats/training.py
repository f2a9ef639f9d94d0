"""How an adapter was trained, as far as the files beside it say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from registry.domain.finding import Finding, Severity
from registry.errors import MalformedFileError
from registry.formats.hyperparameters import hyperparameters
from registry.formats.json_lines import parse_json_lines
from registry.formats.json_text import parse_json
from registry.formats.plain_data import mapping
from registry.formats.trainer_state import log_facts, result_facts, state_facts

#: A log of a million steps; what is larger is reported and not read.
MAX_BYTES = 1 << 26

Reader = Callable[[bytes, str], Mapping[str, object]]


def training_facts(files: Mapping[str, bytes]) -> tuple[dict[str, object], tuple[Finding, ...]]:
    """The facts, sorted by name, and a warning ``unreadable-sidecar`` for each file that could not be read.

    ``files`` maps names (:data:`SIDECARS`; others are ignored) to bytes. It never raises, and equal files give equal
    facts: only JSON's types, finite numbers, nothing about the machine it runs on. A fact that nobody states is
    absent; where two files disagree, the earlier in :data:`SIDECARS` counts.

    ======================================  ==========================================================================
    ``tools``                               what it was trained with: axolotl, llama-factory, trl, unsloth (sorted)
    ``framework_versions``                  lower-case name → version (``{"peft": "0.15.1"}``)
    ``method``, ``stage``                   lora, qlora, …; sft, dpo, pt, … as the tool calls it
    ``base_model``, ``datasets``            as written: a repository, a path
    ``learning_rate``, ``lr_scheduler``,    asked for
    ``warmup_ratio``, ``warmup_steps``,
    ``weight_decay``, ``optimizer``,
    ``seed``, ``sequence_length``,
    ``mixed_precision``, ``max_steps``,
    ``num_train_epochs``
    ``train_batch_size``                    per device; ``total_train_batch_size`` over ``num_devices`` and
                                            ``gradient_accumulation_steps``
    ``epoch``, ``global_step``              reached
    ``train_loss``                          mean over the run; ``last_loss`` the last one logged on the way
    ``eval_loss``                           the last one
    ``best_metric``, ``best_global_step``,  the Trainer's choice, if it was told to choose
    ``best_model_checkpoint``
    ``train_samples``, ``eval_samples``,    sizes and seconds
    ``train_runtime``, ``total_flos``,
    ``num_input_tokens_seen``
    ``library_name``, ``license``,          the card's front matter
    ``pipeline_tag``, ``tags``
    ======================================  ==========================================================================
    """
    facts: dict[str, object] = {}
    tools: set[str] = set()
    findings: list[Finding] = []
    for name, read in SIDECARS.items():
        if name not in files:
            continue
        try:
            found = dict(read(files[name], name))
        except MalformedFileError as error:
            findings.append(Finding("unreadable-sidecar", Severity.WARNING, error.message, name, error.hint))
            continue
        named = found.pop("tools", ())
        tools.update(named if isinstance(named, list) else ())
        facts = found | facts
    if tools:
        facts["tools"] = sorted(tools)
    return dict(sorted(facts.items())), tuple(findings)


def _json(data: bytes, where: str) -> Mapping[str, object]:
    return mapping(parse_json(data, where=where, max_bytes=MAX_BYTES))


def _yaml(data: bytes, where: str) -> Mapping[str, object]:
    from registry.formats.yaml_text import parse_yaml

    return mapping(parse_yaml(data, where=where))


def _state(data: bytes, where: str) -> Mapping[str, object]:
    return state_facts(_json(data, where))


def _results(data: bytes, where: str) -> Mapping[str, object]:
    return result_facts(_json(data, where))


def _arguments(data: bytes, where: str) -> Mapping[str, object]:
    return hyperparameters(_json(data, where))


def _llama_factory_arguments(data: bytes, where: str) -> Mapping[str, object]:
    return {**hyperparameters(_yaml(data, where)), "tools": ["llama-factory"]}


def _llama_factory_board(data: bytes, where: str) -> Mapping[str, object]:
    """The web form's fields, ``train.learning_rate`` and the like."""
    form = _yaml(data, where)
    fields = {name.removeprefix("train."): value for name, value in form.items() if name.startswith("train.")}
    return {**hyperparameters(fields), "tools": ["llama-factory"]}


def _llama_factory_log(data: bytes, where: str) -> Mapping[str, object]:
    return {**log_facts(parse_json_lines(data, where=where, max_bytes=MAX_BYTES)), "tools": ["llama-factory"]}


def _card(data: bytes, where: str) -> Mapping[str, object]:
    from registry.formats.model_card import (
        card_facts,
        parse_card,
    )  # YAML is a tenth of the time of a check without a card

    return card_facts(parse_card(data, where=where), where=where)


#: The files that are looked into, what the program recorded before what people may have edited.
SIDECARS: Mapping[str, Reader] = {
    "trainer_state.json": _state,
    "train_results.json": _results,
    "eval_results.json": _results,
    "all_results.json": _results,
    "training_args.yaml": _llama_factory_arguments,
    "args.json": _arguments,
    "trainer_log.jsonl": _llama_factory_log,
    "README.md": _card,
    "llamaboard_config.yaml": _llama_factory_board,
}
