"""Pictures and films in conversations: forms, formats, sessions, and who expands them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat import (
    Image,
    Llama4Format,
    Message,
    Rendered,
    TemplateFormat,
    Text,
    Video,
    from_openai,
    to_openai,
)
from llama4_core.chat.conversation import Turn, chat, with_images
from llama4_core.chat.session import Session
from llama4_core.errors import ChatError, GenerationError, ModalityError
from llama4_core.testing.chat_strategies import SPECIALS, ByteTokenizer

TOOL = {"name": "f", "parameters": {}}
SOURCES = st.sampled_from(["a.png", "data:image/png;base64,AA==", "http://a/b.gif"])
VIDEOS = st.builds(
    Video, st.none() | SOURCES, st.none() | st.integers(1, 9), st.none() | st.floats(0.1, 60)
)
PARTS = st.text("ab <|", max_size=4).map(Text) | st.builds(Image, st.none() | SOURCES) | VIDEOS
USERS = st.lists(PARTS, max_size=4).map(lambda parts: Message("user", parts))
TALKS = st.lists(USERS | st.just(Message("assistant", "ok")), min_size=1, max_size=4)
TEMPLATE = (
    "<|begin_of_text|>{% for m in messages %}<|header_start|>{{ m.role }}<|header_end|>\n\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|image|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)
FORMATS = [Llama4Format(), TemplateFormat(source=TEMPLATE, specials=SPECIALS, tokens={})]


class TestParts:
    def test_of_a_message(self):
        parts = [Image("a"), "b", Video("c", 3, 0.5)]
        message = Message("user", parts)
        assert message.content == (Image("a"), Text("b"), Video("c", 3, 0.5))
        assert message.text == "b"
        assert message.images == (Image("a"),)
        assert message.inputs == (Image("a"), Video("c", 3, 0.5))

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"frames": 0}, "frames of a film are 0"),
            ({"frames": 1.5}, "frames of a film are 1.5"),
            ({"frames": True}, "frames of a film are True"),
            ({"fps": 0}, "fps of a film is 0"),
            ({"fps": float("nan")}, "fps of a film is nan"),
            ({"fps": float("inf")}, "fps of a film is inf"),
            ({"fps": "2"}, "fps of a film is '2'"),
        ],
    )
    def test_of_a_film_that_cannot_be_sampled(self, settings, words):
        with pytest.raises(ChatError, match=words):
            Video("a.gif", **settings)


class TestOpenAI:
    @given(TALKS)
    def test_round_trip(self, messages):
        assert from_openai(json.loads(json.dumps(to_openai(messages)))) == messages

    @pytest.mark.parametrize(
        ("part", "expected"),
        [
            ({"type": "video_url", "video_url": {"url": "a.mp4"}}, Video("a.mp4")),
            ({"type": "video_url", "video_url": "a.mp4"}, Video("a.mp4")),
            (
                {"type": "video_url", "video_url": {"url": "a", "frames": 4, "fps": 2}},
                Video("a", 4, 2),
            ),
            ({"type": "video_url", "video_url": {"url": "a"}, "fps": 2.5}, Video("a", None, 2.5)),
            ({"type": "video", "video": "a", "frames": 4}, Video("a", 4)),
            ({"type": "video", "path": "a"}, Video("a")),
            ({"type": "video"}, Video()),
            ({"type": "image_url", "image_url": {"url": "a", "detail": "auto"}}, Image("a")),
            ({"type": "image", "image": "a", "url": None}, Image("a")),
        ],
    )
    def test_forms(self, part, expected):
        (message,) = from_openai([{"role": "user", "content": [part]}])
        assert message.content == (expected,)

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            ({"type": "video", "video": "a", "frames": 0}, "frames of a film are 0"),
            ({"type": "video_url", "video_url": {"url": "a", "size": 3}}, "the key 'size'"),
            ({"type": "video_url", "video_url": {"url": "a"}, "size": 3}, "the key 'size'"),
            ({"type": "image", "image_url": {"url": "a"}}, "the key 'image_url'"),
            ({"type": "image", "image": "a", "frames": 2}, "the key 'frames'"),
            ({"type": "image", "image": "a", "url": "b"}, "names 2 sources"),
            ({"type": "image_url", "image_url": {"url": "a", "detail": "low"}}, "detail 'low'"),
            ({"type": "audio"}, "'video_url' or 'video'"),
        ],
    )
    def test_keys_are_honoured_or_refused_by_name(self, part, words):
        with pytest.raises(ChatError, match=words):
            from_openai([{"role": "user", "content": [part]}])

    def test_paths_are_written_as_text(self):
        (written,) = to_openai([Message("user", [Image(Path("a.png")), Video(Path("b.gif"))])])
        assert from_openai([written])[0].inputs == (Image("a.png"), Video("b.gif"))

    @pytest.mark.parametrize("part", [Image(object()), Video([1, 2]), Image(b"bytes")])
    def test_objects_are_refused(self, part):
        with pytest.raises(ChatError, match=r"(an image|a film) is a .*URL or a path"):
            to_openai([Message("user", [part])])


class TestFormats:
    @pytest.mark.parametrize("form", FORMATS)
    @given(messages=TALKS)
    def test_inputs_keep_their_places(self, form, messages):
        """Parsing gives them back with their sources; each is expanded once, in order."""
        rendered = form.render(messages)
        expected = [part for message in messages for part in message.inputs]
        assert list(rendered.inputs) == expected
        assert rendered.images == tuple(one for one in expected if isinstance(one, Image))
        assert form.parse(form.render(messages)) == messages
        seen = []
        ids = form.encode(rendered, ByteTokenizer(), expand=lambda one: seen.append(one) or [-1])
        assert seen == expected
        assert ids.count(-1) == len(expected)

    @given(messages=TALKS, place=st.sampled_from(["system", "user"]))
    def test_tools_lose_none(self, messages, place):
        form = Llama4Format(tools_in=place)
        found = form.render([Message("user", "x"), *messages], [TOOL]).inputs
        assert list(found) == [part for message in messages for part in message.inputs]

    def test_a_template_that_loses_one_is_refused(self):
        source = TEMPLATE.replace("c.type == 'image'", "c.type == 'none'")
        form = TemplateFormat(source=source, specials=SPECIALS, tokens={})
        with pytest.raises(ChatError, match="wrote 0 of 2 images and films"):
            form.render([Message("user", [Image("a"), Video("b")])])

    def test_a_film_comes_back_from_ids_as_its_images(self, seeing):
        prompt = Turn.prepare(seeing, [Message("user", [Video([[1], [2]]), "?"])]).prompt
        names = {290: "<|image|>", 291: "<|image_start|>", 292: "<|image_end|>"}
        specials = seeing.tokenizer.specials
        ids = [specials[names[one]] if one in names else one for one in prompt]
        found = Llama4Format().parse(Rendered.from_ids(ids, seeing.tokenizer))
        assert found == [Message("user", ["0", Image(), "1", Image(), "?"])]

    def test_without_anybody_to_expand_it(self):
        rendered = Llama4Format().render([Message("user", [Video("a")])])
        with pytest.raises(ChatError, match=r"holds a film.*expand="):
            Llama4Format().encode(rendered, ByteTokenizer())


class TestImages:
    """``images=`` of chat."""

    def test_go_in_front_of_the_last_user_message(self):
        messages = [
            Message("user", "first"),
            Message("assistant", "ok"),
            Message("user", [Image("c"), "second"]),
            Message("tool", "42"),
        ]
        found = with_images(messages, ["a", Video("b")])
        assert found[2] == Message("user", [Image("a"), Video("b"), Image("c"), "second"])
        assert [*found[:2], found[3]] == [*messages[:2], messages[3]]
        assert messages[2].inputs == (Image("c"),)

    def test_need_a_user_message(self, seeing):
        with pytest.raises(ChatError, match="got 1 images and no message of the user"):
            seeing.chat([Message("system", "x")], ["a"])

    def test_tools_in_their_place_are_named(self, seeing):
        with pytest.raises(ModalityError, match="tools="):
            seeing.chat("Hi", [TOOL])


class TestTurns:
    @pytest.mark.parametrize("form", FORMATS)
    def test_the_modality_expands_all_at_once(self, sighted, form):
        model = sighted()
        messages = [
            Message("user", ["See ", Image([1]), " and ", Video([[2], [3]])]),
            Message("assistant", "ok"),
            Message("user", "Well?"),
        ]
        reply = chat(model, messages, [[4, 5]], max_tokens=3, chat_format=form)
        assert model.vision.reads == [3]
        assert model.vision.forwards == [5]
        prompt = reply.generation.prompt_tokens
        places = [index for index, token in enumerate(prompt) if token == 290]
        assert len(places) == 2 * 5
        # the same prompt written by hand
        tiles = [[number, 1.0] for number in (1, 2, 3, 4, 5)]
        stops = [261, 260]
        other = model.generate(prompt, pixel_values=tiles, max_tokens=3, stop_tokens=stops)
        assert other.tokens == reply.generation.tokens

    def test_an_expand_of_ones_own_wins(self, sighted):
        """Captions instead of pictures; or ids of one's own, with tiles of one's own."""
        model = sighted()
        messages = [Message("user", [Image("x"), "?"])]
        reply = chat(model, messages, expand=lambda part: list(b"a cat"), max_tokens=1)
        assert b"a cat?" in bytes(t for t in reply.generation.prompt_tokens if t < 256)
        assert not model.vision.reads
        tiles = [[1.0, 1.0]]
        reply = chat(
            model, messages, expand=lambda part: [290, 290], max_tokens=1, pixel_values=tiles
        )
        assert model.vision.forwards == [1]
        with pytest.raises(ModalityError, match="2 placeholder"):
            chat(model, messages, expand=lambda part: [290, 290])

    def test_a_format_that_shuffles_them_is_followed(self, sighted):
        """What counts is where the ids are, not in which order they were asked for."""

        class Backwards(Llama4Format):
            def encode(self, rendered, tokenizer, *, expand=None):
                first, second = rendered.inputs
                later = list(expand(second))
                return [*expand(first), *later]

        model = sighted()
        messages = [Message("user", [Image([1]), Image([2, 3])])]
        turn = Turn.prepare(model, messages, chat_format=Backwards())
        assert turn.prompt == [291, 290, 290, 292, 291, *[290] * 4, 292]
        assert [one.reading.places for one in turn.inputs] == [2, 4]

    def test_a_format_that_loses_one_is_refused(self, sighted):
        class Forgetful(Llama4Format):
            def encode(self, rendered, tokenizer, *, expand=None):
                return [1, 2]

        with pytest.raises(ChatError, match="put 0 of 1 images"):
            Turn.prepare(sighted(), [Message("user", [Image([1])])], chat_format=Forgetful())

    def test_models_that_do_not_see(self, sighted):
        messages = [Message("user", [Image("a.png"), "?"])]
        with pytest.raises(ModalityError, match="sighted is a text model"):
            chat(sighted(vision=None), messages)
        with pytest.raises(ModalityError, match="pip install llama4-vision"):
            chat(sighted("none"), messages)


class TestSessions:
    def test_store_paths_and_resume(self, sighted, tmp_path):
        """The same replies in one session and in one that was written down between."""
        (tmp_path / "one.txt").write_text("1 2")
        model = sighted()
        picture = Image(str(tmp_path / "one.txt"))
        settings = {"max_tokens": 3, "temperature": 1.0}
        once = Session(settings=settings, file=tmp_path / "once.json")
        twice = Session(settings=settings, file=tmp_path / "twice.json")
        for session in (once, twice):
            self.say(session, model, [picture, "What?"])
        self.say(once, model, ["And?"])
        resumed = Session.read(tmp_path / "twice.json")
        assert resumed.messages == twice.messages
        self.say(resumed, model, ["And?"])
        assert resumed.messages == once.messages
        assert model.vision.forwards == [2], "the second question encoded again"

    @staticmethod
    def say(session, model, parts):
        replying = session.reply(model, Message("user", parts))
        for _ in replying:
            pass
        return replying.finish()

    @pytest.mark.parametrize(
        ("parts", "error"),
        [
            ([Image("/no/such/picture"), "?"], ModalityError),
            ([Image([1]), "?"], ChatError),
            (["a" * 600], GenerationError),
        ],
    )
    def test_a_message_that_fails_is_not_stored(self, sighted, tmp_path, parts, error):
        """Neither in memory nor in the file; what was said before stays."""
        model = sighted()
        session = Session(settings={"max_tokens": 2}, file=tmp_path / "s.json")
        self.say(session, model, ["Hi"])
        before, stored = list(session.messages), (tmp_path / "s.json").read_bytes()
        with pytest.raises(error):
            session.reply(model, Message("user", parts))
        assert session.messages == before
        assert (tmp_path / "s.json").read_bytes() == stored
        assert self.say(session, model, ["Still there?"]) is not None

    def test_without_a_file_a_picture_may_be_an_object(self, sighted):
        session = Session(settings={"max_tokens": 2})
        self.say(session, sighted(), [Image([1]), "?"])
        assert len(session.messages) == 2
