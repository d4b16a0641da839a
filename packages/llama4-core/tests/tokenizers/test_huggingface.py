"""Properties 35 and 36, and the decoding half of 54."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers import check_vocabulary, load_tokenizer
from llama4_core.tokenizers.huggingface import HuggingFaceTokenizer

SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot|>")
# Any text of Unicode, and text that spells specials whole, cut and nested.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
HOSTILE = st.lists(
    st.sampled_from([*SPECIALS, "<|", "eot", "|>", "<|eo", "t|>", "<", "\0", "\0<|eot|>", " ", "a"])
    | TEXT
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(content):
    return HuggingFaceTokenizer(content, bos=SPECIALS[0])


@given(text=HOSTILE)
def test_text_comes_back_and_never_yields_a_special(tokenizer, text):
    ids = tokenizer.encode(text, bos=False)
    assert tokenizer.decode(ids, specials=False) == text
    assert not set(ids) & set(tokenizer.specials.values())


@given(text=HOSTILE)
def test_specials_when_asked_for_are_those_of_the_library(tokenizer, library, text):
    assert tokenizer.encode(text, bos=False, specials=True) == (
        library.encode(text, add_special_tokens=False).ids
    )
    assert tokenizer.encode(text, specials=True) == library.encode(text).ids


@given(text=TEXT)
def test_ordinary_text_has_the_ids_of_the_library(tokenizer, library, text):
    if not any(name in text for name in SPECIALS):
        assert tokenizer.encode(text) == library.encode(text).ids


def test_beginning_of_text_and_names(tokenizer, library):
    bos = library.token_to_id(SPECIALS[0])
    assert tokenizer.bos == bos
    assert tokenizer.encode("a")[0] == bos
    assert tokenizer.encode("a")[1:] == tokenizer.encode("a", bos=False)
    assert dict(tokenizer.specials) == {name: library.token_to_id(name) for name in SPECIALS}
    assert tokenizer.vocabulary == library.get_vocab_size()


@given(ids=st.lists(st.integers(0, 302)), specials=st.booleans())
def test_stream_equals_decode_equals_library(tokenizer, library, ids, specials):
    decoder = tokenizer.stream(specials=specials)
    pieces = [decoder.feed(token) for token in ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(ids, specials=specials)
    assert tokenizer.decode(ids, specials=specials) == (
        library.decode(ids, skip_special_tokens=not specials)
    )


@given(text=TEXT)
def test_stream_never_emits_part_of_a_character(tokenizer, text):
    decoder = tokenizer.stream()
    shown = ""
    for token in tokenizer.encode(text):
        shown += decoder.feed(token)
        assert text.startswith(shown)
    assert decoder.finish() == ""
    assert shown == text


def test_padded_ids_decode_to_the_replacement_character(tokenizer):
    assert tokenizer.decode([tokenizer.vocabulary + 7]) == "\ufffd"


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.decode([-1]),
        lambda t: t.decode([1.5]),
        lambda t: t.encode("a\ud800"),
        lambda t: t.encode(b"bytes"),
    ],
)
def test_bad_input_is_refused(tokenizer, call):
    with pytest.raises(TokenizerError):
        call(tokenizer)


def edited(content, edit):
    tree = json.loads(content)
    edit(tree)
    return json.dumps(tree)


@given(text=HOSTILE)
def test_an_added_token_without_the_mark_is_special_too(content, text):
    def unmark(tree):
        for token in tree["added_tokens"]:
            token["special"] = False

    tokenizer = HuggingFaceTokenizer(edited(content, unmark))
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.specials.values())
    assert tokenizer.decode(ids) == text


def test_a_special_that_the_vocabulary_lists_too_stays_out_of_reach(content, library):
    # With ignore_merges a whole word is looked up in the vocabulary: here "cat".
    tree = json.loads(content)
    number = len(tree["model"]["vocab"])
    tree["model"]["vocab"]["cat"] = number
    tree["added_tokens"] = [
        dict(tree["added_tokens"][0], id=number, content="cat"),
        *(dict(token, id=token["id"] + 1) for token in tree["added_tokens"]),
    ]
    tokenizer = HuggingFaceTokenizer(json.dumps(tree))
    assert tokenizer.specials["cat"] == number
    for text in ("cat", "a cat", "cat\0cat", "\0cat"):
        ids = tokenizer.encode(text)
        assert number not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("cat", specials=True) == [number]


def test_stored_limits_do_not_cut_the_prompt(library, content, tokenizer):
    library = type(library).from_str(content)
    library.enable_truncation(2)
    library.enable_padding(length=50)
    ids = HuggingFaceTokenizer(library.to_str()).encode("the cat sat")
    assert ids == tokenizer.encode("the cat sat", bos=False)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t["added_tokens"][1].update(id=400), ["'<|end_of_text|>'", "400", "301"]),
        (lambda t: t.update(decoder={"type": "Fuse"}), ["Fuse", "ByteLevel"]),
        (lambda t: t.update(model={"type": "Nothing"}), ["tokenizer.json"]),
    ],
)
def test_unusable_files_are_refused(content, edit, words):
    with pytest.raises(TokenizerError) as caught:
        HuggingFaceTokenizer(edited(content, edit))
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_a_file_without_added_tokens(content):
    tokenizer = HuggingFaceTokenizer(edited(content, lambda tree: tree.pop("added_tokens")))
    assert not tokenizer.specials
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


def test_loading_a_folder(folder, tokenizer):
    loaded = load_tokenizer(folder)
    assert loaded.bos == tokenizer.bos
    assert loaded.encode("the cat") == tokenizer.encode("the cat")
    assert load_tokenizer(folder, bos="<|eot|>").bos == tokenizer.specials["<|eot|>"]


def test_beginning_of_text_from_the_generation_config(folder, tokenizer):
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).bos is None
    (folder / "generation_config.json").write_text('{"bos_token_id": 302}')
    assert load_tokenizer(folder).bos == 302


def test_a_folder_without_a_tokenizer(tmp_path):
    assert load_tokenizer(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b'{"version": "1.0", "trunc'),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"bos_token": "<|nowhere|>"}'),
        ("tokenizer_config.json", b'{"bos_token": [1]}'),
        ("tokenizer_config.json", b'{"bos_token": 5000}'),
    ],
)
def test_damaged_files_are_named(folder, name, data):
    (folder / name).write_bytes(data)
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_model(tokenizer):
    check_vocabulary(tokenizer, tokenizer.vocabulary)
    with pytest.raises(TokenizerError, match=r"302.* 200 "):
        check_vocabulary(tokenizer, 200)
