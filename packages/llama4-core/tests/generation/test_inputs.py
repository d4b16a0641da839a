"""Prompts with pictures: what the model is fed, however prompts are cut, batched or written."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat import Image, Text, Video
from llama4_core.errors import GenerationError, ModalityError
from llama4_core.generation import ReadPrompt, generate, stream
from llama4_core.generation.inputs import Features
from llama4_core.generation.prompts import is_batch, read_prompt

BOS, PATCH, START, END = 256, 290, 291, 292
NUMBERS = st.lists(st.integers(-3, 3), min_size=1, max_size=5)
PICTURES = st.builds(Image, NUMBERS)
FILMS = st.builds(Video, st.lists(NUMBERS, min_size=1, max_size=3), st.none() | st.integers(1, 2))
TEXTS = st.text("ab ?", min_size=1, max_size=5)
# One or two inputs: the fake reads four at most, and two of each prompt is what can be confused.
PARTS = st.tuples(
    st.lists(TEXTS | PICTURES, max_size=2), PICTURES | FILMS, st.lists(TEXTS | PICTURES, max_size=1)
).map(lambda drawn: [*drawn[0], drawn[1], *drawn[2]])
IDS = st.lists(st.integers(0, 255), min_size=1, max_size=12)
PROMPTS = st.lists(PARTS | TEXTS | IDS, min_size=1, max_size=4)
CHUNKS = st.none() | st.integers(1, 9)
# Orders of float32 sums over two layers of width 16; logits are a few units large.
CLOSE = {"rtol": 0, "atol": 2e-5}


def pixels(parts):
    """What the fake modality makes of the inputs among ``parts``, in order; None for none."""
    found = []
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Image):
            found += part.source
        elif isinstance(part, Video):
            found += [number for frame in part.source[: part.frames] for number in frame]
    return torch.tensor([[number, 1.0] for number in found]) if found else None


def whole(model, prompt, tokens):
    """Log-probabilities by one uncached pass over the expanded ids and their pixels."""
    with torch.no_grad():
        return model.logits(list(tokens), pixels(prompt)).log_softmax(-1)


class TestAgainstOnePass:
    @given(prompts=PROMPTS, chunk=CHUNKS, count=st.integers(1, 3))
    def test_a_ragged_batch_in_any_chunks(self, seeing, prompts, chunk, count):
        """Each row of a batch, cut anywhere, is what ``logits(ids, pixel_values)`` says."""
        found = generate(seeing, prompts, count, ignore_eos=True, prefill_chunk=chunk, logprobs=300)
        for prompt, one in zip(prompts, found, strict=True):
            table = whole(seeing, prompt, [*one.prompt_tokens, *one.tokens[:-1]])
            table = table[len(one.prompt_tokens) - 1 :]
            for row, alternatives in zip(table, one.alternatives, strict=True):
                got = torch.tensor([value for _, value in sorted(alternatives)])
                torch.testing.assert_close(got, row, **CLOSE)

    @given(prompts=PROMPTS, steps=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4)))
    def test_hidden_states_of_every_token(self, seeing, prompts, steps):
        """However many tokens of each row a step feeds, all hidden states are those of one pass."""
        read = [read_prompt(one, 0, seeing.tokenizer, 300, 512, model=seeing) for one in prompts]
        features = Features(seeing, [one.inputs for one in read])
        cached = seeing.cached(len(read))
        fed = [0] * len(read)
        got = [[] for _ in read]
        with torch.inference_mode():
            for lengths in [*steps, [512] * 4]:  # the last one feeds what is left
                pieces = [
                    one.tokens[at : at + length]
                    for one, at, length in zip(read, fed, lengths, strict=False)
                ]
                if not any(pieces):
                    continue
                given = [len(piece) for piece in pieces]
                tokens = torch.tensor([token for piece in pieces for token in piece])
                hidden, _ = seeing(tokens, cached.extend(given), features=features.take(pieces))
                cached.commit()
                for row, part in enumerate(hidden.split(given)):
                    got[row].append(part)
                    fed[row] += given[row]
            for prompt, one, parts in zip(prompts, read, got, strict=True):
                tokens = torch.tensor(one.tokens)
                context = seeing.packed([len(tokens)])
                expected, _ = seeing(tokens, context, seeing._features(pixels(prompt)))
                torch.testing.assert_close(torch.cat(parts), expected, **CLOSE)

    @given(first=NUMBERS, second=NUMBERS, between=TEXTS)
    def test_image_order_follows_placeholders(self, seeing, first, second, between):
        """Property 34: the m-th feature goes to the m-th placeholder, of whichever image it is."""
        prompt = [Image(first), between, Image(second)]
        found = generate(seeing, prompt, 1, logprobs=300)
        got = torch.tensor([value for _, value in sorted(found.alternatives[0])])
        torch.testing.assert_close(got, whole(seeing, prompt, found.prompt_tokens)[-1], **CLOSE)
        swapped = generate(seeing, [Image(second), between, Image(first)], 1, logprobs=300)
        if first != second:
            assert swapped.alternatives != found.alternatives

    def test_a_stream_gives_the_same_pieces(self, seeing):
        prompts = [[Image([1, 2]), "a"], "b", [Video([[1], [2]]), Image([3])]]
        settings = {"temperature": 1.0, "seed": 3, "max_tokens": 6, "ignore_eos": True}
        expected = generate(seeing, prompts, **settings)
        pieces = list(stream(seeing, prompts, prefill_chunk=2, **settings))
        for row, one in enumerate(expected):
            own = [token for piece in pieces if piece.row == row for token in piece.tokens]
            assert tuple(own) == one.tokens

    def test_a_text_with_images_is_continued(self, seeing):
        """Stopped after three tokens and gone on from their ids: the same six tokens."""
        settings = {"ignore_eos": True, "stop_tokens": ()}
        prompt = [Image([1, -2]), "so"]
        expected = generate(seeing, prompt, 6, **settings)
        first = generate(seeing, prompt, 3, **settings)
        rest = generate(
            seeing,
            [*first.prompt_tokens, *first.tokens],
            3,
            pixel_values=pixels(prompt),
            **settings,
        )
        assert (*first.tokens, *rest.tokens) == expected.tokens

    def test_a_row_whose_prompt_fills_the_context_does_not_disturb_the_others(self, sighted):
        model = sighted()
        full = [*range(250)] * 3
        prompts = [full[:512], [Image([2]), "a"]]
        found = generate(model, prompts, 2, ignore_eos=True)
        assert found[0].stop_reason == "context"
        assert found[1] == generate(model, prompts[1], 2, ignore_eos=True)


class TestWhatAPromptIs:
    """A list is one prompt of parts only if an image or a film lies directly in it."""

    @pytest.mark.parametrize(
        ("prompt", "batch"),
        [
            ("a", False),
            ([1, 2], False),
            ([], False),
            (torch.tensor([1, 2]), False),
            (["a", "b"], True),
            (["a"], True),
            ([[1], [2]], True),
            ([Image("x")], False),
            ([Image("x"), "a"], False),
            (["a", Image("x")], False),
            (("a", Video("x"), "b"), False),
            ([Text("a"), Image("x")], False),
            (["a", [Image("x")]], True),
            ([[Image("x"), "a"]], True),
            ([["a", "b"]], True),
            (ReadPrompt((1, 2)), False),
            ([ReadPrompt((1, 2)), "a"], True),
        ],
    )
    def test_one_or_many(self, prompt, batch):
        assert is_batch(prompt) is batch

    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            ([["a", "b"]], ["prompt 0", "no token id", "Image among them"]),
            ([Image([1]), [1, 2]], ["prompt 0 is a list of parts", "[1, 2]"]),
            ([Image([1]), 5], ["prompt 0 is a list of parts", "holds 5"]),
            ([[1, 2], Image([1])], ["prompt 1 is an Image alone", "list of parts"]),
            ([5, Image([1])], ["prompt 0", "no token id"]),
            (Image([1]), ["an Image", "list of"]),
        ],
    )
    def test_what_is_neither_is_named(self, seeing, prompt, words):
        with pytest.raises(GenerationError) as caught:
            generate(seeing, prompt)
        assert all(word in str(caught.value) for word in words), str(caught.value)

    def test_ids_are_expanded_in_place(self, seeing):
        found = generate(seeing, [Text("a"), "b", Image([7]), "c", Video([[1], [2, 3]])], 1)
        assert found.prompt_tokens == (
            *(BOS, *b"ab", START, PATCH, PATCH, END, *b"c"),
            *(*b"0", START, PATCH, PATCH, END, *b"1", START, *[PATCH] * 4, END),
        )

    def test_text_cannot_spell_a_special_beside_an_image(self, seeing):
        found = generate(seeing, [Image([1]), "<|eot|>"], 1)
        assert found.prompt_tokens[-7:] == tuple(b"<|eot|>")

    def test_all_inputs_of_a_prompt_are_read_at_once(self, sighted):
        model = sighted()
        generate(model, [[Image([1]), "a", Image([2]), Video([[3]])], "b", [Image([4])]], 1)
        assert model.vision.reads == [3, 1]

    def test_limits_hold_for_each_prompt(self, seeing):
        four = [Image([number]) for number in range(4)]
        assert len(generate(seeing, [four, four], 1)) == 2
        with pytest.raises(ModalityError, match="got 5 pictures; expected at most 4"):
            generate(seeing, [*four, Image([4])])
        with pytest.raises(ModalityError, match="prompt 1: got 5 pictures"):
            generate(seeing, ["a", [*four, Image([4])]])


class TestImages:
    """``images=`` puts pictures in front."""

    @given(text=TEXTS, pictures=st.lists(NUMBERS, min_size=1, max_size=3))
    def test_in_front_of_text_and_ids_and_parts(self, seeing, text, pictures):
        parts = [Image(one) for one in pictures]
        expected = generate(seeing, [*parts, text], 2, ignore_eos=True)
        assert seeing.generate(text, pictures, max_tokens=2, ignore_eos=True) == expected
        ids = seeing.tokenizer.encode(text)
        assert generate(seeing, ids, 2, ignore_eos=True, images=parts) == expected
        rest = [*parts[1:], text]
        if len(parts) > 1:
            assert generate(seeing, rest, 2, ignore_eos=True, images=parts[:1]) == expected

    def test_in_front_of_ids_without_a_beginning(self, seeing):
        found = generate(seeing, [5, 6], 1, images=[[1]])
        assert found.prompt_tokens == (START, PATCH, PATCH, END, 5, 6)

    @pytest.mark.parametrize(
        ("images", "words"),
        [
            ("cat.png", "a str; expected a list"),
            (Image([1]), "an Image; expected a list"),
            (7, "an int; expected a list"),
            ([None], "holds a NoneType"),
            ([{"name": "f"}], "tools="),
        ],
    )
    def test_what_is_no_list_of_pictures(self, seeing, images, words):
        with pytest.raises(ModalityError, match=words):
            generate(seeing, "a", images=images)

    def test_belong_to_one_prompt(self, seeing):
        with pytest.raises(GenerationError, match="a list of 2 prompts"):
            generate(seeing, ["a", "b"], images=[[1]])
        with pytest.raises(GenerationError, match="read before"):
            generate(seeing, ReadPrompt((1,)), images=[[1]])


class TestPixelValues:
    """Tiles that somebody made fill the placeholder tokens of ids."""

    @given(prompts=st.lists(PARTS | IDS, min_size=1, max_size=3), chunk=CHUNKS)
    def test_are_what_images_are(self, seeing, prompts, chunk):
        settings = {"max_tokens": 2, "ignore_eos": True, "logprobs": 0}
        expected = generate(seeing, prompts, **settings)
        tiles = [found for found in map(pixels, prompts) if found is not None]
        found = generate(
            seeing,
            [one.prompt_tokens for one in expected],
            prefill_chunk=chunk,
            pixel_values=torch.cat(tiles) if tiles else None,
            **settings,
        )
        for one, other in zip(found, expected, strict=True):
            assert one.prompt_tokens == other.prompt_tokens
            torch.testing.assert_close(
                torch.tensor(one.logprobs), torch.tensor(other.logprobs), **CLOSE
            )

    @pytest.mark.parametrize(
        ("prompt", "tiles", "words"),
        [
            ("a", torch.ones(1, 2), "prompt 0 is text"),
            ([Image([1]), "a"], torch.ones(1, 2), "prompt 0 is one with images"),
            ([PATCH] * 2, torch.ones(2, 2), "features for an input|2 tiles for 2 placeholder"),
            ([PATCH] * 3, torch.ones(2, 2), "2 tiles for 3 placeholder"),
            ([1, 2], torch.ones(2, 2), "2 tiles for 0 placeholder"),
            ([[PATCH], [PATCH] * 3], torch.ones(2, 2), "prompt 0 holds 1 .* with 2 of them"),
            ([PATCH] * 2, torch.ones(2), r"shape \[2\]"),
            ([PATCH] * 2, torch.ones(0, 2), r"shape \[0, 2\]"),
            ([PATCH] * 2, object(), "pixel_values are a object"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, seeing, prompt, tiles, words):
        with pytest.raises(ModalityError, match=words):
            generate(seeing, prompt, 1, pixel_values=tiles)

    def test_placeholders_without_a_picture_are_refused(self, seeing):
        """Alone and in a batch: else a row would depend on the others of its batch."""
        for prompt in ([1, PATCH], [[1, PATCH], [Image([1])]]):
            with pytest.raises(ModalityError, match=r"holds 1 placeholder .* for 0 features"):
                generate(seeing, prompt)

    def test_ids_with_placeholders_and_images(self, seeing):
        with pytest.raises(ModalityError, match=r"holds 3 placeholder .* for 2 features"):
            generate(seeing, [1, PATCH], images=[[1]])


class TestModelsThatDoNotSee:
    def test_a_model_of_ones_own_says_so(self, model):
        """The fake of the loop: no modalities, no ``features`` argument."""
        with pytest.raises(ModalityError, match="fake is a text model"):
            generate(model, [Image("x"), "a"])
        assert not model.forwards

    def test_a_text_model_says_so(self, sighted):
        model = sighted(vision=None)
        for settings in ({"images": ["x"]}, {"pixel_values": torch.ones(1, 2)}):
            with pytest.raises(ModalityError, match="sighted is a text model"):
                generate(model, [1, 2], **settings)

    def test_without_an_encoder_it_says_which_package_is_missing(self, sighted):
        model = sighted("none")
        for settings in ({"images": ["x"]}, {"pixel_values": torch.ones(1, 2)}):
            with pytest.raises(ModalityError, match="pip install llama4-vision"):
                generate(model, [1, 2], **settings)

    def test_another_kind_is_named(self, sighted):
        model = sighted()
        model.vision.kinds = ("image",)
        with pytest.raises(ModalityError, match="kind 'video', but sighted reads images only"):
            generate(model, [Video([[1]]), "a"])

    def test_without_a_tokenizer_ids_still_go(self, sighted):
        model = sighted()
        expected = generate(model, [BOS, 5], 2, images=[[1]])
        model.tokenizer = None
        assert generate(model, [BOS, 5], 2, images=[[1]]).tokens == expected.tokens
        with pytest.raises(GenerationError, match="a list of texts and images"):
            generate(model, [Image([1]), "a"])


class TestBrokenModalities:
    """What a plugin may get wrong is named before or instead of a wrong answer."""

    def test_readings_and_parts(self, sighted):
        model = sighted()
        model.vision.read = lambda parts, tokenizer: []
        with pytest.raises(ModalityError, match="FakeEyes gave 0 readings of 1 inputs"):
            generate(model, [Image([1])])

    def test_tokens_and_places(self, sighted):
        model = sighted()
        read = model.vision.read

        def miscounted(parts, tokenizer):
            (found,) = read(parts, tokenizer)
            return [type(found)(found.key, found.tokens[1:-2], found.places, found.inputs)]

        model.vision.read = miscounted
        with pytest.raises(ModalityError, match="1 placeholders for 2 features"):
            generate(model, [Image([1])])

    @pytest.mark.parametrize(
        ("bug", "words"),
        [
            (lambda features: features[:, :1], "gave 1 features for an input of 2 placeholder"),
            (lambda features: features.flatten(0, 1), r"shape \[2, 16\]"),
            (lambda features: features[:0], r"shape \[0, 2, 16\]"),
        ],
    )
    def test_features_and_places(self, sighted, bug, words):
        model = sighted()
        forward = model.vision.forward
        model.vision.forward = lambda inputs: bug(forward(inputs))
        with pytest.raises(ModalityError, match=words):
            generate(model, [Image([1])])
