"""What PEFT would save for an adapter config on a base: names and shapes, of models without weights.

    python -m tests.journeys.corpus_partners < QUESTIONS > ANSWERS

Torch and transformers work in this process of their own. A question is a base's config and the adapter configs that are
laid over it; the answer to each is ``{tensor: shape}``, or PEFT's objection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Shapes = dict[str, list[int]]
#: The class that PEFT's users load for a task; for other tasks it is the one that the base's config names.
_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def saved_by_peft(questions: Sequence[tuple[str, Sequence[Path]]]) -> list[list[Shapes | str]]:
    """One list of answers per base, in the order of its adapter configs."""
    asked = json.dumps([[config, [str(path) for path in paths]] for config, paths in questions])
    words = [sys.executable, "-m", "tests.journeys.corpus_partners"]
    done = subprocess.run(words, input=asked, stdout=subprocess.PIPE, check=True, encoding="utf-8")
    found: list[list[Shapes | str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _answers(config_text: str, paths: Sequence[str]) -> list[Shapes | str]:
    import transformers

    with tempfile.TemporaryDirectory() as place:
        Path(place, "config.json").write_text(config_text)
        base = transformers.AutoConfig.from_pretrained(place)
    return [_answer(base, Path(path)) for path in paths]


def _answer(base: Any, path: Path) -> Shapes | str:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    raw = json.loads(path.read_bytes())
    with tempfile.TemporaryDirectory() as place:
        Path(place, "adapter_config.json").write_text(json.dumps(raw))
        config = LoraConfig.from_pretrained(place)
    config.inference_mode = False
    make = getattr(transformers, (raw.get("auto_mapping") or {}).get("base_model_class") or base.architectures[0])
    auto = _CLASSES.get(config.task_type)
    if config.task_type == "CAUSAL_LM" and not hasattr(make, "prepare_inputs_for_generation"):
        auto = "AutoModelForCausalLM"
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(base) if auto is not None else make(base)
    try:
        model = get_peft_model(model, config, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    except ValueError as error:
        return str(error)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: list(tensor.shape) for name, tensor in state.items()}


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    print(json.dumps([_answers(config, paths) for config, paths in json.load(sys.stdin)]))
