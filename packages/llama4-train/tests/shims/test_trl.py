"""What the mend of TRL changes, and that its trainers run; the latter is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_train.lora import load_adapter
from llama4_train.shims.trl import mend

transformers = pytest.importorskip("transformers")

VOCABULARY = 64
BEGIN, END, PAD = 60, 61, 62
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of ours as Hugging Face has it."""
    spec = ModelSpec(
        name="tiny-for-tests",
        vocabulary=VOCABULARY,
        width=16,
        norm_eps=1e-5,
        max_positions=256,
        tied=False,
        layers=llama4_layers(
            2,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=16,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=3),
            position_free=every(2, 2),
            moe_layers=(1,),
            moe=MoESpec(4, top_k=1, width=12, shared_width=12, router="sigmoid-top-k"),
            dense=DenseSpec(24),
        ),
        dtype="float32",
    )
    model = l4.assemble(spec, device="cpu")
    initialise(model, 0)
    folder = tmp_path_factory.mktemp("trl") / "exported"
    l4.save(model, folder, format="huggingface")
    return folder


def tokenizer_of_letters() -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = "abcdefghijklmnopqrstuvwxyz .,!?0123456789"
    ids = {letter: number for number, letter in enumerate(letters)}
    ids |= {f"<unused{n}>": n for n in range(len(ids), BEGIN)}
    ids |= {"<begin>": BEGIN, "<end>": END, "<pad>": PAD, "<unknown>": 63}
    plain = Tokenizer(models.WordLevel(ids, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<begin>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unknown>",
        chat_template=TEMPLATE,
    )


def body_of(folder: Path) -> Any:
    model = transformers.Llama4ForCausalLM.from_pretrained(folder)
    return model, model.base_model


def test_the_mend_says_what_it_did_and_undoes_it(exported: Path) -> None:
    config = transformers.Llama4TextConfig
    names = dict(config.attribute_map)
    model, body = body_of(exported)
    assert body is model  # what TRL stumbles over
    assert not hasattr(model.config, "num_experts")
    done = mend()
    assert [change.partition(" ")[0] for change in done.changes] == [
        "Llama4ForCausalLM.base_model",
        "Llama4TextConfig.num_experts",
    ]
    assert model.base_model is model.model
    assert model.config.num_experts == model.config.num_local_experts == 4
    again = mend()
    assert again.changes == ()
    again.undo()
    assert model.base_model is model.model
    done.undo()
    done.undo()
    assert model.base_model is model
    assert not hasattr(model.config, "num_experts")
    assert config.attribute_map == names
    assert "attribute_map" not in vars(config)
    assert "base_model" not in vars(transformers.Llama4ForCausalLM)


def test_the_mend_ends_with_its_context(exported: Path) -> None:
    with mend() as outer, mend() as inner:
        assert (len(outer.changes), len(inner.changes)) == (2, 0)
        model, body = body_of(exported)
    assert body is model.model
    assert model.base_model is model
    with pytest.raises(KeyError), mend():
        raise KeyError
    assert model.base_model is model


def test_classes_that_need_no_mend_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later release of transformers may have it."""
    monkeypatch.setattr(transformers.Llama4ForCausalLM, "base_model_prefix", "model")
    monkeypatch.setattr(transformers.Llama4TextConfig, "num_experts", 4, raising=False)
    assert mend().changes == ()


def test_stored_settings_and_weights_stay_as_they_are(exported: Path, tmp_path: Path) -> None:
    tokens = torch.arange(12)[None]
    plain, _ = body_of(exported)
    plain.save_pretrained(tmp_path / "plain")
    with mend():
        mended, _ = body_of(exported)
        mended.save_pretrained(tmp_path / "mended")
        assert torch.equal(mended(tokens).logits, plain(tokens).logits)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "mended" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


TEXTS = ["the cat sat on the mat.", "a dog ran home", "is 7 more than 5? yes!", "no, 2 is less."]
PAIRS = {
    "prompt": ["the cat", "a dog"] * 6,
    "chosen": [" sat.", " ran."] * 6,
    "rejected": [" flew!", " sang!"] * 6,
}


def trainer_of(kind: str, folder: Path, out: Path, lora: bool) -> Any:
    import trl
    from datasets import Dataset

    model = transformers.Llama4ForCausalLM.from_pretrained(folder, attn_implementation="eager")
    common: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "seed": 0,
    }
    given: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer_of_letters(),
    }
    if lora:
        import peft

        given["peft_config"] = peft.LoraConfig(
            r=2,
            target_modules=["q_proj", "v_proj"],
            target_parameters=["experts.gate_up_proj", "experts.down_proj"],
        )
    if kind == "dpo":
        return trl.DPOTrainer(
            args=trl.DPOConfig(max_length=32, **common),
            train_dataset=Dataset.from_dict(PAIRS),
            **given,
        )
    if kind == "grpo":

        def spaces(completions: list[str], **_: Any) -> list[float]:
            """Rewards any letter but one, so that groups differ."""
            return [float(len(set(text))) for text in completions]

        return trl.GRPOTrainer(
            reward_funcs=spaces,
            args=trl.GRPOConfig(num_generations=2, max_completion_length=8, **common),
            train_dataset=Dataset.from_dict({"prompt": PAIRS["prompt"]}),
            **given,
        )
    return trl.SFTTrainer(
        args=trl.SFTConfig(max_length=32, packing=kind == "sft-packed", **common),
        train_dataset=Dataset.from_dict({"text": TEXTS * 4}),
        **given,
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["sft", "sft-packed", "dpo", "grpo"])
def test_trainers_take_five_steps(exported: Path, tmp_path: Path, kind: str, lora: bool) -> None:
    for name in ("trl", "peft", "datasets", "accelerate"):
        pytest.importorskip(name)
    with mend():
        trainer = trainer_of(kind, exported, tmp_path / "out", lora)
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 5
    assert all(-10 < loss < 10 for loss in losses)
    print(kind, "LoRA" if lora else "full", [round(loss, 4) for loss in losses])
    changed = [
        name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])
    ]
    assert changed
    assert not lora or all("lora_" in name for name in changed)
    if kind == "dpo":
        assert losses[-1] < losses[0]  # five passes over two pairs
    # What TRL trained comes home.
    trainer.model.save_pretrained(tmp_path / "trained")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected = trainer.model.eval()(tokens, use_cache=False).logits
    ours = l4.load(exported if lora else tmp_path / "trained")
    if lora:
        load_adapter(ours, tmp_path / "trained")
    # 5e-6 of the largest logit, at least 2e-5, as between any two references in float32.
    limit = max(2e-5, 5e-6 * float(expected.abs().max()))
    assert float((ours.logits(tokens).detach() - expected).abs().max()) <= limit


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_without_the_mend_they_stop(exported: Path, tmp_path: Path) -> None:
    """When this fails, TRL or transformers have mended it themselves, and the shim can go."""
    pytest.importorskip("trl")
    with pytest.raises(AttributeError, match="last_hidden_state"):
        trainer_of("sft", exported, tmp_path / "out", lora=False).train()
