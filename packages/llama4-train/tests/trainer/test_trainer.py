"""The loop: accumulation, health, the guard, recomputed activations, and the command."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.checkpoints.safetensors_file import map_tensors, read_header
from llama4_core.cli import main
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.trainer.denormals import flushes_denormals
from llama4_train.trainer.guard import check_finite
from llama4_train.trainer.health import gradient_health, router_health
from llama4_train.trainer.loop import Trainer, train


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_a_run_learns_and_repeats(base):
    first, second = Trainer.of(base), Trainer.of(base)
    losses = [step.loss for step in first]
    assert losses == [step.loss for step in second]
    assert losses[-1] < losses[0]
    theirs = weights(second)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(first).items())


def test_recomputed_activations_change_no_bit(base):
    """Forward is pure, so that running it twice counts and draws nothing twice."""
    found = []
    for kind in ("none", "selective", "full"):
        trainer = Trainer.of(base.override({"model.checkpointing": kind}))
        steps = list(trainer)
        biases = [
            layer.feed_forward.router.bias.clone()
            for layer in trainer.model.layers
            if hasattr(layer.feed_forward, "router")
        ]
        found.append(([step.loss for step in steps], weights(trainer), biases))
        assert not any("checkpoint" in name for name, _ in trainer.model.named_modules())
    for losses, values, biases in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(one, found[0][1][name]) for name, one in values.items())
        assert all(torch.equal(one, two) for one, two in zip(biases, found[0][2], strict=True))


def test_a_bias_moves_once_a_step(base):
    """Whatever is accumulated, the router's rate is taken once."""
    trainer = Trainer.of(base.override({"data.accumulate": 3, "steps": 1}))
    list(trainer)
    router = trainer.model.layers[1].feed_forward.router
    assert router.bias.abs().max() == pytest.approx(router.rate)
    assert router.bias.count_nonzero()


def test_a_recipe_sets_the_rate_and_a_resumed_run_keeps_to_it(base, tmp_path):
    one = {"name": "sigmoid-top-k-balanced", "settings": {"rate": 0.125}}
    recipe = base.override({"model.overrides": {"layers.*.feed_forward.router": one}, "steps": 1})
    trainer = Trainer.of(recipe, folder=tmp_path / "run")
    list(trainer)
    assert all(bias.abs().max() == 0.125 for bias in biases(trainer))
    again = Trainer.of(recipe, folder=tmp_path / "run", resume=True)
    assert again.model.layers[1].feed_forward.router.rate == 0.125
    with pytest.raises(TrainingError, match="overrides"):
        Trainer.of(base.override({"steps": 1}), folder=tmp_path / "run", resume=True)


def biases(trainer):
    return [trainer.model.layers[index].feed_forward.router.bias.clone() for index in (1, 3)]


def test_a_bias_is_released_over_the_last_steps(base):
    """Balanced for three steps, then three, two and one parts of what there was, less one."""
    trainer = Trainer.of(base.override({"schedule.release": 3, "steps": 6}))
    found = []
    for _ in trainer:
        found.append(biases(trainer))
    assert not torch.equal(found[1][0], found[2][0])
    for number, share in ((3, 2 / 3), (4, 1 / 3), (5, 0.0)):
        for bias, full in zip(found[number], found[2], strict=True):
            # Two float32 products.
            torch.testing.assert_close(bias, share * full, rtol=1e-6, atol=0)
    assert all(not any(bias.numpy().tobytes()) for bias in found[-1])
    # Nothing of the run before it is another.
    plain = Trainer.of(base.override({"steps": 6}))
    first = [biases(plain) for _, _ in zip(range(3), plain, strict=False)]
    assert all(map(torch.equal, first[2], found[2]))


def test_routers_that_cannot_let_go_are_balanced_to_the_end(base):
    trainer = Trainer.of(base.override({"schedule.release": 2, "steps": 4}))
    told = []

    class Foreign(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, info):
            return self.inner(x, info)

        def after_step(self, counts):
            told.append(counts)

    for index in (1, 3):
        forward = trainer.model.layers[index].feed_forward
        forward.router = Foreign(forward.router)
    list(trainer)
    assert len(told) == 2 * 4


def test_a_frozen_router_is_not_released(base):
    frozen = {"model.train": ["layers.*.attention"], "schedule.release": 2, "steps": 2}
    trainer = Trainer.of(base.override(frozen))
    for index in (1, 3):
        trainer.model.layers[index].feed_forward.router.bias.fill_(0.5)
    list(trainer)
    assert all(bias.eq(0.5).all() for bias in biases(trainer))


def test_steps_are_as_long_as_the_schedule_says(base):
    """AdamW's first step moves no weight further than its learning rate, decay aside."""
    trainer = Trainer.of(base.override({"schedule.warmup": 4, "steps": 4}))
    before = weights(trainer)
    assert trainer.step().learning_rate == pytest.approx(0.01 / 4)
    moved = [(value - before[name]).abs().max() for name, value in weights(trainer).items()]
    # The decay of 0.1 moves a weight of 1 by a tenth of that; nothing starts above 4.
    assert 0.9 * 0.01 / 4 < max(moved) < 1.5 * 0.01 / 4


def test_batches_of_a_step_share_one_denominator(base):
    """Whence the gradients of k batches are those of one batch k times as large."""
    trainer = Trainer.of(base.override({"data.accumulate": 3}))
    seen, real = [], trainer.parts.objective

    def spy(model, batch, step):
        seen.append((batch.weight, len(batch.tokens), step))
        return real(model, batch, step)

    trainer.parts.objective = spy
    trainer.step()
    assert len(seen) == 3
    for _, _, step in seen:
        assert step.weight == sum(weight for weight, _, _ in seen)
        assert step.tokens == sum(tokens for _, tokens, _ in seen)


def test_a_step_counts_tiny_numbers_as_zero_and_puts_that_back(base):
    trainer = Trainer.of(base)
    objective, seen = trainer.parts.objective, []

    def watched(*given):
        seen.append(flushes_denormals())
        return objective(*given)

    trainer.parts.objective = watched
    trainer.step()
    assert seen == [torch.set_flush_denormal(False)]  # True where the processor can
    assert not flushes_denormals()


def test_an_evaluation_disturbs_nothing(base):
    task = {"name": "world", "settings": {"world": "arithmetic", "count": 2}}
    watched = base.override({"evaluation": {"every": 2, "tasks": [task]}})
    plain, seen = Trainer.of(base), Trainer.of(watched)
    losses, steps = [step.loss for step in plain], list(seen)
    assert [bool(step.evaluation) for step in steps] == [False, True, False, True]
    assert [step.loss for step in steps] == losses
    assert any(name.endswith("accuracy") for name in steps[1].evaluation)


def test_a_frozen_router_keeps_its_bias(base):
    trainer = Trainer.of(base.override({"model.train": ["layers.*.attention"], "steps": 2}))
    list(trainer)
    assert not trainer.model.layers[1].feed_forward.router.bias.any()


def test_only_what_a_glob_names_is_trained(base):
    trainer = Trainer.of(base.override({"model.train": ["layers.*.feed_forward"]}))
    before = weights(trainer)
    list(trainer)
    for name, value in weights(trainer).items():
        assert torch.equal(value, before[name]) == (".feed_forward." not in name), name


def test_the_norm_is_reported_before_clipping(base):
    free, held = (
        list(Trainer.of(base.override({"clip": clip, "steps": 2}))) for clip in (0.0, 1e-9)
    )
    assert free[0].gradient_norm == held[0].gradient_norm > 1e-3


def test_numbers_that_are_none_stop_the_run_and_keep_its_batch(base, tmp_path):
    trainer = Trainer.of(base.override({"checkpoints.every": 1}), folder=tmp_path / "run")
    trainer.step()
    with torch.no_grad():
        trainer.model.head.weight[0, 0] = math.inf
    before = weights(trainer)
    with pytest.raises(TrainingError, match="step 1: the loss is") as error:
        trainer.step()
    kept = map_tensors(read_header(tmp_path / "run" / "not-finite-1.safetensors"))
    assert "not-finite-1.safetensors" in str(error.value)
    assert kept["0.tokens"].shape == kept["0.targets"].shape == kept["0.weights"].shape
    assert kept["0.lengths"].sum() == len(kept["0.tokens"])
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    trainer.keeper.wait()


@pytest.mark.parametrize(
    ("loss", "norm", "said"), [(math.nan, 1.0, "loss"), (1.0, math.inf, "norm")]
)
def test_the_guard_says_which_number(loss, norm, said):
    with pytest.raises(TrainingError, match=said):
        check_finite(loss, norm, 7, [], None)
    check_finite(1.0, 1.0, 7, [], None)


@given(
    counts=st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=1, max_size=3)
)
def test_load_of_experts(counts):
    found = router_health([None, *map(torch.tensor, counts)])
    full = [(i + 1, one) for i, one in enumerate(counts) if sum(one)]
    assert found.get("router.violation") == (
        pytest.approx(sum(max(one) * 4 / sum(one) - 1 for _, one in full) / len(full))
        if full
        else None
    )
    for index, one in full:
        assert found[f"router.violation.{index}"] == pytest.approx(max(one) * 4 / sum(one) - 1)
    if full:
        assert found["router.idle"] == sum(n * 40 < sum(one) for _, one in full for n in one)


def test_norms_by_role_add_up(base):
    trainer = Trainer.of(base)
    step = trainer.step()
    squares = [value**2 for name, value in step.parts.items() if name.startswith("gradient.")]
    # Sums of float32 squares in another order.
    assert math.sqrt(sum(squares)) == pytest.approx(step.gradient_norm, rel=1e-5)
    assert gradient_health([]) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.tokenizer": None}, "no tokenizer"),
        ({"optimizer.settings": {}}, "no lr"),
        ({"model.start": "absent"}, "absent"),
        ({"optimizer.name": "adamv"}, "adamv"),
    ],
)
def test_parts_that_do_not_fit(base, changes, said):
    with pytest.raises(Exception, match=said) as error:
        Trainer.of(base.override(changes))
    assert isinstance(error.value, RecipeError | ValueError) or "unknown" in str(error.value)


def test_the_command_trains_stops_and_goes_on(base, tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    file.write_text(base.override({"steps": 2, "checkpoints.every": 1}).to_toml())
    assert main(["train", str(file), "--dry-run"]) == 0
    assert "2 steps" in capsys.readouterr().out
    assert main(["train", str(file), "--out", str(tmp_path / "run"), "--json"]) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["step"] for one in first] == [0, 1]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert [one["loss"] for one in logged] == [one["loss"] for one in first]
    assert all(one["flops"] > 0 and sum(one["router.load.1"]) == 1 for one in logged)
    more = ["--set", "steps=3", "--set", "schedule.shape=constant"]
    assert main(["train", str(file), "--resume", str(tmp_path / "run"), *more]) == 2
    assert "schedule" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "absent.toml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["train", str(file), "--set", "optimizer.settngs.lr=1"]) == 2
    assert "did you mean 'settings'" in capsys.readouterr().err


def test_a_file_can_be_run_from_python(base, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(base.override({"steps": 1}).to_toml())
    trained = train(file, tmp_path / "run")
    assert not trained.training
    assert (tmp_path / "run" / "log.jsonl").is_file()
    with pytest.raises(TrainingError):
        train(file, tmp_path / "run")
