"""``--image``, ``--video`` and ``--draw`` of ``llama4 generate`` and ``llama4 chat``."""

import io
import json
import sys

import pytest

from llama4_core.chat.messages import Image, Message, Video
from llama4_core.chat.session import Session


@pytest.fixture
def model(sighted, monkeypatch):
    """What the commands load, whatever they are told to; loads are counted."""
    made = sighted()
    made.loads = 0

    def load(arguments):
        made.loads += 1
        return made

    for name in ("generate", "chat"):
        monkeypatch.setattr(f"llama4_core.cli.{name}.load_model", load)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Works in a folder with three pictures."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("one", "1"), ("two", "2 3"), ("bad", "no numbers")):
        (tmp_path / f"{name}.txt").write_text(content)
    return tmp_path


@pytest.fixture
def talk(llama4, monkeypatch):
    """Runs ``llama4 chat`` with lines of input: exit code, stdout, stderr."""

    def run(lines, *options, terminal=False):
        stdin = io.StringIO("".join(f"{line}\n" for line in lines))
        stdin.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", stdin)
        return llama4("chat", "x", "--max-tokens", "2", *options)

    return run


def one_line(code, err):
    assert code == 2
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, err
    assert "Traceback" not in err
    return errors[0]


class TestGenerate:
    def test_pictures_in_order(self, llama4, model):
        words = ["generate", "x", "and?", "--image", "two.txt", "--image", "one.txt", "--json"]
        code, out, _ = llama4(*words, "--max-tokens", "3")
        expected = model.generate("and?", [[2, 3], [1]], max_tokens=3)
        other = model.generate("and?", [[1], [2, 3]], max_tokens=3)
        assert code == 0
        assert tuple(json.loads(out)["tokens"]) == expected.tokens
        assert expected.prompt_tokens != other.prompt_tokens

    def test_films_take_their_options(self, llama4, model, monkeypatch):
        seen = []

        def read(parts, tokenizer):
            seen.extend(parts)
            return type(model.vision).read(model.vision, [Image([1]) for _ in parts], tokenizer)

        monkeypatch.setattr(model.vision, "read", read)
        words = ["generate", "x", "?", "--video", "one.txt", "--image", "two.txt"]
        assert llama4(*words, "--frames", "3", "--fps", "0.5", "--max-tokens", "1")[0] == 0
        film, picture = seen
        assert isinstance(film, Video)
        assert (film.source[-7:], film.frames, film.fps) == ("one.txt", 3, 0.5)
        assert isinstance(picture, Image)

    def test_with_ids(self, llama4, model):
        words = ["generate", "x", "--tokens", "256,5", "--image", "one.txt", "--json"]
        out = llama4(*words, "--max-tokens", "2")[1]
        expected = model.generate([256, 5], [[1]], max_tokens=2)
        assert tuple(json.loads(out)["tokens"]) == expected.tokens

    @pytest.mark.parametrize("as_json", [False, True])
    def test_draws_on_the_last_picture(self, llama4, model, monkeypatch, folder, as_json):
        monkeypatch.setattr(model, "project", says(model, "a box, a cat"))
        words = ["generate", "x", "where?", "--image", "one.txt", "--image", "two.txt"]
        options = ["--draw", "out.png", "--max-tokens", "12", *["--json"] * as_json]
        code, out, err = llama4(*words, *options)
        assert code == 0
        assert (folder / "out.png").read_text() == f"{folder / 'two.txt'}: a box, a cat"
        if as_json:
            found = json.loads(out)
            assert found["drawn"] == "out.png"
            assert found["boxes"] == [{"box": [index]} for index in range(3)]
        else:
            assert out == "a box, a cat\n"
            assert "[3 boxes drawn in out.png]" in err

    def test_more_pictures_if_asked(self, llama4, model):
        words = ["generate", "x", "?", *["--image", "one.txt"] * 5, "--max-tokens", "1"]
        code, _, err = llama4(*words)
        assert "got 5 pictures; expected at most 4" in one_line(code, err)
        assert llama4(*words, "--max-images", "5")[0] == 0
        assert "expected at most 2" in one_line(*llama4(*words, "--max-images", "2")[::2])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--image", "none.png"], "none.png: there is no such image"),
            (["--image", ""], "an empty name: there is no such image"),
            (["--video", "none.gif"], "none.gif: there is no such video"),
            (["--draw", "out.png"], "no picture to draw on"),
            (["--draw", "out.png", "--video", "one.txt"], "no picture to draw on"),
            (["--draw", "gone/out.png", "--image", "one.txt"], "there is no folder gone"),
            (["--frames", "2"], "--frames is for films"),
            (["--fps", "2", "--image", "one.txt"], "--fps is for films"),
            (["--frames", "0", "--video", "one.txt"], "frames of a film are 0"),
            (["--max-images", "-1"], "--max-images is -1"),
        ],
    )
    def test_what_cannot_work_is_said_before_loading(self, llama4, model, options, words):
        code, out, err = llama4("generate", "x", "?", *options)
        assert words in one_line(code, err)
        assert out == ""
        assert model.loads == 0

    def test_unreadable_pictures(self, llama4, model):
        code, out, err = llama4("generate", "x", "?", "--image", "bad.txt")
        assert "bad.txt is no picture" in one_line(code, err)
        assert out == ""

    @pytest.mark.parametrize("options", [["--image", "one.txt"], ["--max-images", "3"]])
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"eyes": "none"}, "pip install llama4-vision"),
            ({"vision": None}, "sighted is a text model"),
        ],
    )
    def test_models_that_do_not_see(self, llama4, sighted, monkeypatch, options, changes, words):
        blind = sighted(**changes)
        monkeypatch.setattr("llama4_core.cli.generate.load_model", lambda arguments: blind)
        code, _, err = llama4("generate", "x", "?", *options)
        assert words in one_line(code, err)

    def test_a_modality_without_limits(self, llama4, model):
        del model.vision.limits
        code, _, err = llama4("generate", "x", "?", "--max-images", "3")
        assert "FakeEyes has none" in one_line(code, err)

    def test_a_drawing_that_fails_comes_after_the_text(self, llama4, model, monkeypatch, folder):
        (folder / "out.png").mkdir()
        monkeypatch.setattr(model, "project", says(model, "yes"))
        words = ["generate", "x", "?", "--image", "one.txt", "--draw", "out.png"]
        code, out, err = llama4(*words, "--max-tokens", "3")
        assert "out.png cannot be written" in one_line(code, err)
        assert out == "yes\n"


def says(model, text):
    """A head that says these bytes, one after the other."""
    project = model.project
    letters = iter(text.encode())

    def say(hidden):
        logits = project(hidden)
        logits[:, next(letters, 261)] = 1000
        return logits

    return say


class TestChat:
    def test_the_option_goes_with_the_first_message(self, talk, model, folder):
        options = ["--image", "two.txt", "--video", "one.txt", "--frames", "2", "--session", "s"]
        read_films_as_pictures(model.vision)
        code, _, _ = talk(["first", "second"], *options)
        assert code == 0
        first, _, second, _ = Session.read(folder / "s").messages
        film = Video(str(folder / "one.txt"), 2)
        assert first == Message("user", [Image(str(folder / "two.txt")), film, "first"])
        assert second == Message("user", "second")

    def test_lines_go_with_the_next_message(self, talk, model, folder):
        lines = ["hello", "/image one.txt", "/image two.txt", "both?", "and?"]
        code, out, _ = talk(lines, "--json", "--session", "s")
        assert code == 0
        messages = [one for one in Session.read(folder / "s").messages if one.role == "user"]
        assert [len(one.inputs) for one in messages] == [0, 2, 0]
        assert [one.text for one in messages] == ["hello", "both?", "and?"]
        assert len(out.splitlines()) == 3
        assert model.vision.forwards == [3]

    def test_a_person_is_told(self, talk, model):
        _, out, err = talk(["/image one.txt", "?", "/image two.txt"])
        assert "[one.txt goes with the next message]" in err
        assert "[1 pictures were given without a message]" in err
        assert "/image" not in out

    def test_draws_what_each_reply_names(self, talk, model, monkeypatch, folder):
        monkeypatch.setattr(model, "project", says(model, "aa"))
        code, out, _ = talk(["what?"], "--image", "one.txt", "--draw", "o.png", "--json")
        assert code == 0
        reply = json.loads(out)
        assert (reply["content"], reply["drawn"], len(reply["boxes"])) == ("aa", "o.png", 2)
        assert (folder / "o.png").read_text() == f"{folder / 'one.txt'}: aa"

    def test_says_how_many_boxes(self, talk, model, monkeypatch):
        monkeypatch.setattr(model, "project", says(model, "ab"))
        assert "[1 box drawn in o.png]" in talk(["?"], "--image", "one.txt", "--draw", "o.png")[2]

    def test_without_a_picture_nothing_is_drawn(self, talk, model, folder):
        code, _, err = talk(["?"], "--draw", "o.png")
        assert code == 0
        assert "drawn" not in err
        assert not (folder / "o.png").exists()

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            (["/image none.png"], "none.png: there is no such image"),
            (["/image"], "an empty name"),
            (["/video none.gif"], "none.gif: there is no such video"),
            (["/image bad.txt", "?"], "bad.txt is no picture"),
            (["/image one.txt"] * 5 + ["?"], "got 5 pictures"),
        ],
    )
    def test_what_was_said_before_is_kept(self, talk, model, folder, lines, words):
        """One line, a code, and a session without the message that could not be answered."""
        code, out, err = talk(["hello", *lines, "more"], "--json", "--session", "s")
        assert words in one_line(code, err)
        assert len(out.splitlines()) == 1
        assert [one.role for one in Session.read(folder / "s").messages] == ["user", "assistant"]

    def test_a_person_can_try_again(self, talk, model, folder):
        lines = ["/image none.png", "/image bad.txt", "broken?", "/image one.txt", "works?"]
        code, _, err = talk(lines, "--session", "s", terminal=True)
        assert code == 0
        assert err.count("error:") == 2
        user, _ = Session.read(folder / "s").messages
        assert user == Message("user", [Image(str(folder / "one.txt")), "works?"])

    def test_a_drawing_that_fails_comes_after_the_reply(self, talk, model, monkeypatch, folder):
        (folder / "o.png").mkdir()
        monkeypatch.setattr(model, "project", says(model, "hm"))
        options = ["--image", "one.txt", "--draw", "o.png", "--session", "s", "--json"]
        code, out, err = talk(["?", "more"], *options)
        assert "o.png cannot be written" in one_line(code, err)
        assert json.loads(out)["content"] == "hm"
        assert len(Session.read(folder / "s").messages) == 2

    def test_options_are_checked_before_loading(self, talk, model):
        for options in (["--image", "none.png"], ["--draw", "gone/o.png"], ["--frames", "0"]):
            code, _, err = talk(["?"], *options)
            one_line(code, err)
        assert model.loads == 0


def read_films_as_pictures(vision):
    """The source of a film is a file here, and the fake reads only pictures from files."""
    reading = vision._reading
    vision._reading = lambda part: reading(Image(part.source) if isinstance(part, Video) else part)


def test_data_and_addresses_are_left_to_the_modality(llama4, model):
    for source in ("data:image/png;base64,AA==", "http://127.0.0.1/a.png"):
        code, _, err = llama4("generate", "x", "?", "--image", source)
        assert f"{source} is no picture" in one_line(code, err)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_names_the_options(llama4, command):
    code, out, _ = llama4(command, "--help")
    assert code == 0
    for option in ("--image FILE", "--video FILE", "--frames N", "--fps X", "--draw OUT.png"):
        assert option in out
    assert "--max-images N" in out
    assert "--image cat.png" in out.partition("examples:")[2]
