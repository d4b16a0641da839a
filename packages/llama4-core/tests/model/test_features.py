"""The cache of features: nothing twice, nothing old, never more than its limit."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from llama4_core.chat import Image
from llama4_core.errors import ModalityError
from llama4_core.generation import generate, stream
from llama4_core.model.features import DEFAULT_LIMIT, PIECES_AT_ONCE, FeatureCache, encode
from llama4_core.protocols.modalities import Reading

# One number is two features of 16 numbers in float32.
BYTES = 2 * 16 * 4
SIZES = st.integers(1, 5)


def made(name, count=1):
    """A reading of ``count`` numbers that depend on its name."""
    inputs = torch.tensor([[float(ord(name[0]) + index), 1.0] for index in range(count)])
    return Reading(f"{name} {count}", (), 2 * count, inputs)


def ask(model, *numbers):
    """The log-probabilities of the first token behind some pictures."""
    found = generate(model, [*(Image([n]) for n in numbers), "a"], 1, logprobs=300)
    return found.alternatives[0]


class TestCounting:
    def test_the_second_question_does_not_encode_again(self, sighted):
        model = sighted()
        picture = Image([1, 2, 3])
        first = generate(model, [picture, "What?"], 2)
        assert model.vision.forwards == [3]
        assert generate(model, [picture, "What?"], 2) == first
        generate(model, ["And ", picture, Image([4]), "?"], 2)
        model.chat("Where?", [picture], max_tokens=1)
        list(stream(model, [[Image([4])], [picture]], 1))
        assert model.vision.forwards == [3, 1]
        assert len(model.features) == 2

    def test_equal_inputs_are_encoded_once(self, sighted):
        model = sighted()
        generate(model, [[Image([1]), Image([1])], [Image([2]), Image([1])]], 1)
        assert model.vision.forwards == [2]

    def test_tiles_of_ones_own_too(self, sighted):
        model = sighted()
        for _ in range(2):
            generate(model, [290, 290], 1, pixel_values=torch.ones(1, 2))
        generate(model, [290, 290], 1, pixel_values=torch.zeros(1, 2))
        assert model.vision.forwards == [1, 1]

    def test_logits_encode_each_time(self, sighted):
        """They may need gradients, which nothing that is kept has."""
        model = sighted()
        for _ in range(2):
            model.logits([290, 290], torch.ones(1, 2)).sum().backward()
        assert model.vision.forwards == [1, 1]
        assert model.vision.projector.weight.grad.abs().sum() > 0

    @given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5))
    def test_batches_are_bounded_and_change_nothing(self, seeing, counts):
        readings = [made(chr(97 + index), count) for index, count in enumerate(counts)]
        seeing.vision.forwards.clear()
        found = FeatureCache(0).encode(seeing.vision, readings)
        full, rest = divmod(sum(counts), PIECES_AT_ONCE)
        assert seeing.vision.forwards == [PIECES_AT_ONCE] * full + [rest] * (rest > 0)
        for reading, features in zip(readings, found, strict=True):
            expected = seeing.vision(reading.inputs).flatten(0, 1)
            # one product of two numbers, perhaps by another kernel
            torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)
            assert features.untyped_storage().nbytes() == features.nbytes


class TestLimit:
    @given(
        # whole pictures, and a byte less
        limit=st.builds(lambda pictures, less: pictures * BYTES - less, SIZES, st.integers(0, 1)),
        asked=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2)), max_size=12),
    )
    @example(limit=2 * BYTES, asked=[("a", 1), ("b", 1), ("a", 1), ("c", 1), ("a", 1), ("b", 1)])
    @example(limit=2 * BYTES, asked=[("a", 2), ("a", 2)])
    def test_the_least_recently_used_go_first(self, seeing, limit, asked):
        """Against a list of names, the latest at the end."""
        cache = FeatureCache(limit)
        kept = []
        for name, count in asked:
            seeing.vision.forwards.clear()
            (features,) = cache.encode(seeing.vision, [made(name, count)])
            assert len(features) == 2 * count
            known = (name, count) in kept
            assert seeing.vision.forwards == ([] if known else [count])
            if known:
                kept.remove((name, count))
            if count * BYTES <= limit:
                kept.append((name, count))
            while sum(n for _, n in kept) * BYTES > limit:
                kept.pop(0)
            assert cache.nbytes == sum(n for _, n in kept) * BYTES <= limit
            assert len(cache) == len(kept)

    def test_a_smaller_one_takes_effect_at_once(self, sighted):
        model = sighted()
        assert model.features.limit == DEFAULT_LIMIT == 256 * 2**20
        ask(model, 1)
        ask(model, 2)
        assert model.features.nbytes == 2 * BYTES
        model.features.limit = BYTES
        assert (len(model.features), model.features.nbytes) == (1, BYTES)
        ask(model, 2)
        assert model.vision.forwards == [1, 1]
        model.features.clear()
        assert (len(model.features), model.features.nbytes) == (0, 0)

    @pytest.mark.parametrize("limit", [-1, 1.5, "1", None, True])
    def test_what_is_no_number_of_bytes(self, limit):
        with pytest.raises(ModalityError, match="whole number of bytes"):
            FeatureCache(limit)


def step(model):
    optimizer = torch.optim.SGD(model.vision.parameters(), lr=0.5)
    model.logits([290, 290], torch.ones(1, 2)).square().sum().backward()
    optimizer.step()


def load_weights(model):
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})


def assign_weights(model):
    state = {k: v + 1 for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def edit(model):
    with torch.no_grad():
        model.vision.projector.weight[0, 0] += 1


def edit_in_inference_mode(model):
    with torch.inference_mode():
        model.vision.projector.weight[0, 0] += 1


def put_another_parameter(model):
    model.vision.projector.weight = torch.nn.Parameter(model.vision.projector.weight + 1)


def put_another_module(model):
    weight = model.vision.projector.weight
    # In evaluation mode, like the model: new modules are made in training mode.
    model.vision.projector = torch.nn.Sequential(model.vision.projector, torch.nn.Tanh()).eval()
    assert model.vision.projector[0].weight is weight


def put_another_modality(model):
    model.vision = copy.deepcopy(model.vision)
    model.vision.projector.weight.data += 1


def convert(model):
    model.to(torch.float64)


def other_data(model):
    model.vision.projector.weight.data = model.vision.projector.weight.data + 1


def train(model):
    model.train()
    model.vision.projector = torch.nn.Sequential(model.vision.projector, torch.nn.Dropout(0.5))


def look(model):
    def double(module, inputs, output):
        return 2 * output

    model.vision.projector.register_forward_hook(double)


CHANGES = [
    step, load_weights, assign_weights, edit, edit_in_inference_mode, put_another_parameter,
    put_another_module, put_another_modality, convert, other_data, train, look,
]  # fmt: skip


class TestNeverOld:
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_changed_modality_encodes_anew(self, sighted, change):
        """And says what a model says that never kept anything."""
        model = sighted()
        ask(model, 1, 2)
        change(model)
        model.vision.forwards.clear()
        fresh = copy.deepcopy(model)
        torch.manual_seed(0)
        found = ask(model, 1, 2)
        assert model.vision.forwards == [2]
        torch.manual_seed(0)
        fresh.vision.forwards.clear()
        assert ask(fresh, 1, 2) == found
        assert fresh.vision.forwards == [2]

    def test_under_autocast_features_are_others(self, sighted):
        model = sighted()
        ask(model, 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ask(model, 1)
            ask(model, 1)
        ask(model, 1)
        assert model.vision.forwards == [1, 1, 1]

    def test_changing_the_text_model_keeps_them(self, sighted):
        model = sighted()
        ask(model, 1)
        with torch.no_grad():
            model.embedding.weight += 1
        ask(model, 1)
        assert model.vision.forwards == [1]

    @pytest.mark.parametrize("change", [train, look])
    def test_each_forward_is_wanted(self, sighted, change):
        """Dropout at random and hooks: not kept from the first question to the second either."""
        model = sighted()
        change(model)
        ask(model, 1)
        ask(model, 1)
        assert model.vision.forwards == [1, 1]
        assert len(model.features) == 0

    def test_a_new_parameter_at_an_old_address(self, sighted):
        """Its address, type and version are those of the old one, and it is still another."""
        model = sighted()
        ask(model, 1)
        old = model.vision.projector.weight
        new = torch.nn.Parameter(old.data)
        old.data += 1
        with torch.no_grad():
            while new._version < old._version:
                new.mul_(1)
        assert (new.data_ptr(), new._version) == (old.data_ptr(), old._version)
        model.vision.projector.weight = new
        del old
        gc.collect()
        ask(model, 1)
        assert model.vision.forwards == [1, 1]

    def test_parameters_of_inference_mode_are_not_trusted(self, sighted):
        """Torch counts no versions of them."""
        model = sighted()
        with torch.inference_mode():
            weight = model.vision.projector.weight.clone()
        model.vision.projector.weight = torch.nn.Parameter(weight, requires_grad=False)
        first = ask(model, 1)
        with torch.inference_mode():
            model.vision.projector.weight.add_(1)
        assert ask(model, 1) != first

    def test_weights_that_change_while_they_are_used(self, sighted):
        """Another thread trains on: what comes out is used once and not kept."""
        model = sighted()
        forward = model.vision.forward

        def meanwhile(inputs):
            found = forward(inputs)
            edit(model)
            return found

        model.vision.forward = meanwhile
        ask(model, 1)
        assert len(model.features) == 0

    def test_a_failed_forward_keeps_nothing(self, sighted):
        model = sighted()
        model.vision.forward = lambda inputs: inputs
        with pytest.raises(ModalityError):
            ask(model, 1)
        assert (len(model.features), model.features.nbytes) == (0, 0)


def through_a_file(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - what we wrote ourselves


def test_several_threads(sighted):
    """Sixteen questions at once about four pictures: the right features, and the books in order."""
    vision, cache = sighted().vision, FeatureCache(3 * BYTES)
    readings = [made(name) for name in "abcd" * 4]
    expected = encode(vision, readings)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda reading: cache.encode(vision, [reading])[0], readings))
    for one, other in zip(found, expected, strict=True):
        # one product of two numbers, perhaps by another kernel
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert cache.nbytes == len(cache) * BYTES <= cache.limit


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_a_file])
def test_copies_keep_the_limit_and_no_features(sighted, duplicate):
    model = sighted()
    model.features.limit = 1000
    ask(model, 1)
    other = duplicate(model.features)
    assert (other.limit, len(other), other.nbytes) == (1000, 0, 0)


def test_whole_numbers_are_not_cast(sighted):
    """An encoder that looks inputs up in a table takes them as they are."""

    class Table(torch.nn.Module):
        placeholder = 0

        def forward(self, inputs):
            assert inputs.dtype == torch.int64
            return torch.zeros(len(inputs), 1, 4)

    reading = Reading("x", (0,), 1, torch.zeros(1, 3, dtype=torch.int64))
    assert encode(Table(), [reading], dtype=torch.bfloat16)[0].shape == (1, 4)
