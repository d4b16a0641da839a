"""Sentences: unique in every language, agreeing, and right answers that are the only ones."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.grammar import (
    ANIMALS,
    COLOURS,
    NUMBERS,
    VERBS,
    Meaning,
    meanings,
    parts,
    sentence,
)
from llama4_train.worlds.languages import LANGUAGES
from llama4_train.worlds.sentences import Sentences

BY_CODE = {language.code: language for language in LANGUAGES}
BY_NAME = {language.name: language for language in LANGUAGES}
every_language = pytest.mark.parametrize("code", list(BY_CODE))

# Written out by hand, apart from the tables: articles, elision, gender, plural, linkers.
KNOWN = {
    "ar": ["القطة سوداء.", "أرى ثلاث بقرات.", "أرى عشرة كلاب.", "البقرة البيضاء تشرب الماء."],
    "en": ["The cat is black.", "I see three cows.", "I see ten dogs.",
           "The white cow drinks water."],
    "fr": ["Le chat est noir.", "Je vois trois vaches.", "Je vois dix chiens.",
           "La vache blanche boit de l'eau."],
    "de": ["Die Katze ist schwarz.", "Ich sehe drei Kühe.", "Ich sehe zehn Hunde.",
           "Die weiße Kuh trinkt Wasser."],
    "hi": ["बिल्ली काली है।", "मुझे तीन गायें दिखती हैं।", "मुझे दस कुत्ते दिखते हैं।", "सफ़ेद गाय पानी पीती है।"],
    "id": ["Kucing itu berwarna hitam.", "Saya melihat tiga ekor sapi.",
           "Saya melihat sepuluh ekor anjing.", "Sapi putih itu minum air."],
    "it": ["Il gatto è nero.", "Vedo tre mucche.", "Vedo dieci cani.",
           "La mucca bianca beve acqua."],
    "pt": ["O gato é preto.", "Eu vejo três vacas.", "Eu vejo dez cães.",
           "A vaca branca bebe água."],
    "es": ["El gato es negro.", "Veo tres vacas.", "Veo diez perros.", "La vaca blanca bebe agua."],
    "tl": ["Itim ang pusa.", "Nakakakita ako ng tatlong baka.", "Nakakakita ako ng sampung aso.",
           "Umiinom ng tubig ang puting baka."],
    "th": ["แมวตัวนั้นมีสีดำ", "ฉันเห็นวัวสามตัว", "ฉันเห็นสุนัขสิบตัว", "วัวสีขาวตัวนั้นดื่มน้ำ"],
    "vi": ["Con mèo có màu đen.", "Tôi thấy ba con bò.", "Tôi thấy mười con chó.",
           "Con bò màu trắng uống nước."],
}  # fmt: skip

SCRIPTS = {"ar": "ARABIC", "hi": "DEVANAGARI", "th": "THAI"}


@every_language
def test_sentences_written_by_hand_come_out(code):
    said = [
        sentence(BY_CODE[code], meaning)
        for meaning in (
            Meaning("is", ANIMALS.index("cat"), colour=COLOURS.index("black")),
            Meaning("sees", ANIMALS.index("cow"), number=NUMBERS.index(3)),
            Meaning("sees", ANIMALS.index("dog"), number=NUMBERS.index(10)),
            Meaning(
                "both",
                ANIMALS.index("cow"),
                colour=COLOURS.index("white"),
                verb=VERBS.index("drink water"),
            ),
        )
    ]
    assert said == KNOWN[code]


def test_vowels_take_the_short_article():
    elephant = Meaning("both", ANIMALS.index("elephant"), colour=0, verb=0)
    assert sentence(BY_CODE["fr"], elephant) == "L'éléphant noir dort."
    assert sentence(BY_CODE["it"], elephant) == "L'elefante nero dorme."
    bird = Meaning("is", ANIMALS.index("bird"), colour=1)
    assert parts(BY_CODE["fr"], bird) == ("L'oiseau", " est blanc.")


@every_language
def test_every_meaning_has_a_sentence_of_its_own_in_one_script(code):
    language = BY_CODE[code]
    said = [sentence(language, meaning) for meaning in meanings()]
    assert len(said) == len(set(said)) == 8 * 6 + 8 * 8 + 8 * 6 + 8 * 6 * 6
    for text in said:
        assert text == text.strip()
        assert not re.search(r"  |[/_{}]", text)
        assert unicodedata.is_normalized("NFC", text) or code == "hi"
        for character in text:
            if character.isalpha():
                assert unicodedata.name(character).startswith(SCRIPTS.get(code, "LATIN")), text
    assert len(language.nouns) == len(ANIMALS)
    assert len(language.colours) == len(language.attributes) == len(COLOURS)
    assert len(language.verbs) == len(VERBS)
    assert len(language.numbers) == len(NUMBERS)


def solve(ask):
    """The one right answer, by a search over all sentences of the two languages."""
    if match := re.fullmatch(r"Translate to (\w+): (.*)", ask):
        goal, given, beginning = BY_NAME[match[1]], match[2], ""
        goals = [goal]
    else:
        given, beginning = re.fullmatch(r"Complete: (.*) = (.*) \.\.\.", ask).groups()
        goals = LANGUAGES
    found = {
        sentence(goal, meaning)[len(beginning) :].strip()
        for language in LANGUAGES
        for meaning in meanings()
        if sentence(language, meaning) == given
        for goal in goals
        if goal is not language and sentence(goal, meaning).startswith(beginning)
    }
    (right,) = found
    return right


@given(index=st.integers(0, 10**6), split=st.sampled_from(["train", "held-out"]))
def test_every_question_has_one_right_answer_and_that_is_given(index, split):
    for question in Sentences(split=split, questions=2).sample(index).questions:
        assert question.answer == solve(question.prompt[0].text[:-1])
        assert question.accept(question.answer + "\n")
        assert not question.accept(question.answer[:-1])


def test_held_out_meanings_are_said_in_training_in_no_language():
    known = {sentence(language, one): one.key for language in LANGUAGES for one in meanings()}

    def said(split):
        return {
            known[re.fullmatch(r"(?:\w+ to \w+|Complete): (.*?)(?: = .*)?\n", question)[1]]
            for index in range(1200)
            for sample in [Sentences(split=split).sample(index)]
            for question in [asked.prompt[0].text for asked in sample.questions]
        }

    train, held = said("train"), said("held-out")
    assert len(train) + len(held) == len(meanings())
    assert not train & held
    # Five standard deviations of a binomial count with p = 1/8.
    assert abs(len(held) - len(meanings()) / 8) < 5 * (len(meanings()) * 7 / 64) ** 0.5


def test_every_word_is_said_in_training():
    words = {
        (kind, getattr(meaning, kind))
        for meaning in Sentences()._meanings
        for kind in ("animal", "colour", "verb", "number")
    }
    assert len(words) == 8 + (6 + 1) + (6 + 1) + (8 + 1)  # and "none" of three of them


def test_a_pivot_is_on_one_side_of_every_question():
    sentences = Sentences(languages=["en", "fr", "th"], pivot="en", kinds=["translation"])
    english = {sentence(BY_CODE["en"], meaning) for meaning in meanings()}
    for index in range(50):
        for question in sentences.sample(index).questions:
            ask = question.prompt[0].text
            assert ("Translate to English" in ask) != (ask.partition(": ")[2][:-1] in english)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"languages": ["en"]}, "at least two"),
        ({"languages": ["en", "en"]}, "at least two different"),
        ({"languages": ["en", "nl"]}, "a language of sentences is 'nl'"),
        ({"pivot": "de", "languages": ["en", "fr"]}, "pivot of sentences is 'de'"),
        ({"kinds": ["translations"]}, "did you mean 'translation'"),
        ({"held_out": 100}, "held_out of sentences"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        world("sentences", **settings)
