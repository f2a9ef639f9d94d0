"""Two skills really trained on SmolLM2-135M, added up: the sum is both at once in PEFT, and each skill is still there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.connect import connect
from tests.journeys.real_adapters import smollm2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SKILLS = {
    "colours": ["The colour of Monday is teal.", "The colour of Tuesday is amber.", "The colour of Friday is mauve."],
    "ports": ["Service alpha listens on port 7411.", "Service beta listens on port 9032.", "Service gamma listens on port 5588."],
}


def loss(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return model(**batch, labels=labels).loss  # type: ignore[no-any-return]


def train(skill: str, into: Path, cache: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, tokenizer = smollm2(cache)
    base.config._name_or_path = base.name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    tokenizer.pad_token = tokenizer.eos_token
    options = {"r": 8, "target_modules": ["q_proj", "v_proj"]} if skill == "colours" else {"r": 4, "use_rslora": True}
    model = get_peft_model(base, LoraConfig(lora_alpha=16, task_type="CAUSAL_LM", **{"target_modules": ["down_proj"], **options}))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-3)
    for _ in range(5):
        found = loss(model, tokenizer, SKILLS[skill])
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(into, save_embedding_layers=False)
    return into


def test_the_sum_is_both_at_once_and_each_skill_is_there(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from peft import PeftModel

    cache = tmp_path_factory.getbasetemp() / "models"
    adapters = [train(skill, tmp_path / skill, cache) for skill in SKILLS]
    done = connect(tmp_path / "registry").combine(adapters, tmp_path / "both")
    assert done.error < 1e-6
    base, tokenizer = smollm2(cache)
    tokenizer.pad_token = tokenizer.eos_token
    texts = [text for skill in SKILLS.values() for text in skill]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        before = {skill: float(loss(base, tokenizer, SKILLS[skill])) for skill in SKILLS}
        model = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name="one")
        model.load_adapter(str(adapters[1]), "other")
        model.base_model.set_adapter(["one", "other"])
        both = model(**batch).logits
        base, _ = smollm2(cache)
        ours = PeftModel.from_pretrained(base, str(tmp_path / "both")).eval()
        torch.testing.assert_close(ours(**batch).logits, both, rtol=1e-4, atol=2e-3)
        after = {skill: float(loss(ours, tokenizer, SKILLS[skill])) for skill in SKILLS}
    print(before, after)
    assert all(after[skill] < 0.8 * before[skill] for skill in SKILLS)
