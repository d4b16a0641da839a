"""The twelve languages that Llama 4 supports, as tables of words that agree."""

from __future__ import annotations

from collections.abc import Iterable

from llama4_train.worlds.grammar import Language, Noun


def _nouns(*rows: str) -> tuple[Noun, ...]:
    """Nouns out of rows "singular, plural, gender, article"; "_" is the space behind an article."""
    return tuple(Noun(*row.replace("_", " ").split(", ")) for row in rows)


def _words(text: str) -> tuple[str, ...]:
    """Words separated by ", "."""
    return tuple(text.split(", "))


def _all(words: Iterable[str], form: str) -> tuple[str, ...]:
    return tuple(form.format(word) for word in words)


ARABIC = Language(
    "ar",
    "Arabic",
    _nouns(
        "القطة, قطط, f",
        "الكلب, كلاب, m",
        "الحصان, أحصنة, m",
        "البقرة, بقرات, f",
        "الطائر, طيور, m",
        "الأسد, أسود, m",
        "الأرنب, أرانب, m",
        "الفيل, فيلة, m",
    ),
    _words("أسود/سوداء, أبيض/بيضاء, أحمر/حمراء, أخضر/خضراء, أصفر/صفراء, أزرق/زرقاء"),
    _words(
        "الأسود/السوداء, الأبيض/البيضاء, الأحمر/الحمراء, الأخضر/الخضراء, الأصفر/الصفراء, "
        "الأزرق/الزرقاء"
    ),
    _words("ينام/تنام, يأكل/تأكل, يشرب الماء/تشرب الماء, يركض/تركض, يقفز/تقفز, يلعب/تلعب"),
    # From three to ten the number takes the other gender than the thing that is counted.
    _words("ثلاثة/ثلاث, أربعة/أربع, خمسة/خمس, ستة/ست, سبعة/سبع, ثمانية/ثماني, تسعة/تسع, عشرة/عشر"),
    {
        "is": "{one} {colour}.",
        "sees": "أرى {number} {many}.",
        "does": "{one} {verb}.",
        "both": "{one} {attribute} {verb}.",
    },
)

_ENGLISH_COLOURS = _words("black, white, red, green, yellow, blue")

ENGLISH = Language(
    "en",
    "English",
    _nouns(
        "cat, cats",
        "dog, dogs",
        "horse, horses",
        "cow, cows",
        "bird, birds",
        "lion, lions",
        "rabbit, rabbits",
        "elephant, elephants",
    ),
    _ENGLISH_COLOURS,
    _ENGLISH_COLOURS,
    _words("sleeps, eats, drinks water, runs, jumps, plays"),
    _words("three, four, five, six, seven, eight, nine, ten"),
    {
        "is": "the {one} is {colour}.",
        "sees": "I see {number} {many}.",
        "does": "the {one} {verb}.",
        "both": "the {attribute} {one} {verb}.",
    },
)

_FRENCH_COLOURS = _words("noir/noire, blanc/blanche, rouge, vert/verte, jaune, bleu/bleue")

FRENCH = Language(
    "fr",
    "French",
    _nouns(
        "chat, chats, m, le_",
        "chien, chiens, m, le_",
        "cheval, chevaux, m, le_",
        "vache, vaches, f, la_",
        "oiseau, oiseaux, m, l'",
        "lion, lions, m, le_",
        "lapin, lapins, m, le_",
        "éléphant, éléphants, m, l'",
    ),
    _FRENCH_COLOURS,
    _FRENCH_COLOURS,
    _words("dort, mange, boit de l'eau, court, saute, joue"),
    _words("trois, quatre, cinq, six, sept, huit, neuf, dix"),
    {
        "is": "{article}{one} est {colour}.",
        "sees": "je vois {number} {many}.",
        "does": "{article}{one} {verb}.",
        "both": "{article}{one} {attribute} {verb}.",
    },
)

GERMAN = Language(
    "de",
    "German",
    _nouns(
        "Katze, Katzen, f, die_",
        "Hund, Hunde, m, der_",
        "Pferd, Pferde, n, das_",
        "Kuh, Kühe, f, die_",
        "Vogel, Vögel, m, der_",
        "Löwe, Löwen, m, der_",
        "Kaninchen, Kaninchen, n, das_",
        "Elefant, Elefanten, m, der_",
    ),
    _words("schwarz, weiß, rot, grün, gelb, blau"),
    # Behind the definite article all genders end alike in the nominative.
    _words("schwarze, weiße, rote, grüne, gelbe, blaue"),
    _words("schläft, frisst, trinkt Wasser, rennt, springt, spielt"),
    _words("drei, vier, fünf, sechs, sieben, acht, neun, zehn"),
    {
        "is": "{article}{one} ist {colour}.",
        "sees": "ich sehe {number} {many}.",
        "does": "{article}{one} {verb}.",
        "both": "{article}{attribute} {one} {verb}.",
    },
)

_HINDI_COLOURS = _words("काला/काली, सफ़ेद, लाल, हरा/हरी, पीला/पीली, नीला/नीली")

HINDI = Language(
    "hi",
    "Hindi",
    _nouns(
        "बिल्ली, बिल्लियाँ, f",
        "कुत्ता, कुत्ते, m",
        "घोड़ा, घोड़े, m",
        "गाय, गायें, f",
        "चिड़िया, चिड़ियाँ, f",
        "शेर, शेर, m",
        "खरगोश, खरगोश, m",
        "हाथी, हाथी, m",
    ),
    _HINDI_COLOURS,
    _HINDI_COLOURS,
    _words(
        "सोता/सोती, खाना खाता/खाना खाती, पानी पीता/पानी पीती, दौड़ता/दौड़ती, कूदता/कूदती, खेलता/खेलती"
    ),
    _words("तीन, चार, पाँच, छह, सात, आठ, नौ, दस"),
    {
        "is": "{one} {colour} है।",
        "sees": "मुझे {number} {many} {sight} हैं।",
        "does": "{one} {verb} है।",
        "both": "{attribute} {one} {verb} है।",
    },
    sight="दिखते/दिखती",
)

_INDONESIAN_COLOURS = _words("hitam, putih, merah, hijau, kuning, biru")

INDONESIAN = Language(
    "id",
    "Indonesian",
    _nouns(
        "kucing, kucing",
        "anjing, anjing",
        "kuda, kuda",
        "sapi, sapi",
        "burung, burung",
        "singa, singa",
        "kelinci, kelinci",
        "gajah, gajah",
    ),
    _INDONESIAN_COLOURS,
    _INDONESIAN_COLOURS,
    _words("tidur, makan, minum air, berlari, melompat, bermain"),
    _words("tiga, empat, lima, enam, tujuh, delapan, sembilan, sepuluh"),
    {
        "is": "{one} itu berwarna {colour}.",
        "sees": "saya melihat {number} ekor {many}.",
        "does": "{one} itu {verb}.",
        "both": "{one} {attribute} itu {verb}.",
    },
)

_ITALIAN_COLOURS = _words("nero/nera, bianco/bianca, rosso/rossa, verde, giallo/gialla, blu")

ITALIAN = Language(
    "it",
    "Italian",
    _nouns(
        "gatto, gatti, m, il_",
        "cane, cani, m, il_",
        "cavallo, cavalli, m, il_",
        "mucca, mucche, f, la_",
        "uccello, uccelli, m, l'",
        "leone, leoni, m, il_",
        "coniglio, conigli, m, il_",
        "elefante, elefanti, m, l'",
    ),
    _ITALIAN_COLOURS,
    _ITALIAN_COLOURS,
    _words("dorme, mangia, beve acqua, corre, salta, gioca"),
    _words("tre, quattro, cinque, sei, sette, otto, nove, dieci"),
    {
        "is": "{article}{one} è {colour}.",
        "sees": "vedo {number} {many}.",
        "does": "{article}{one} {verb}.",
        "both": "{article}{one} {attribute} {verb}.",
    },
)

_PORTUGUESE_COLOURS = _words(
    "preto/preta, branco/branca, vermelho/vermelha, verde, amarelo/amarela, azul"
)

PORTUGUESE = Language(
    "pt",
    "Portuguese",
    _nouns(
        "gato, gatos, m, o_",
        "cão, cães, m, o_",
        "cavalo, cavalos, m, o_",
        "vaca, vacas, f, a_",
        "pássaro, pássaros, m, o_",
        "leão, leões, m, o_",
        "coelho, coelhos, m, o_",
        "elefante, elefantes, m, o_",
    ),
    _PORTUGUESE_COLOURS,
    _PORTUGUESE_COLOURS,
    _words("dorme, come, bebe água, corre, salta, brinca"),
    _words("três, quatro, cinco, seis, sete, oito, nove, dez"),
    {
        "is": "{article}{one} é {colour}.",
        "sees": "eu vejo {number} {many}.",
        "does": "{article}{one} {verb}.",
        "both": "{article}{one} {attribute} {verb}.",
    },
)

_SPANISH_COLOURS = _words("negro/negra, blanco/blanca, rojo/roja, verde, amarillo/amarilla, azul")

SPANISH = Language(
    "es",
    "Spanish",
    _nouns(
        "gato, gatos, m, el_",
        "perro, perros, m, el_",
        "caballo, caballos, m, el_",
        "vaca, vacas, f, la_",
        "pájaro, pájaros, m, el_",
        "león, leones, m, el_",
        "conejo, conejos, m, el_",
        "elefante, elefantes, m, el_",
    ),
    _SPANISH_COLOURS,
    _SPANISH_COLOURS,
    _words("duerme, come, bebe agua, corre, salta, juega"),
    _words("tres, cuatro, cinco, seis, siete, ocho, nueve, diez"),
    {
        "is": "{article}{one} es {colour}.",
        "sees": "veo {number} {many}.",
        "does": "{article}{one} {verb}.",
        "both": "{article}{one} {attribute} {verb}.",
    },
)

TAGALOG = Language(
    "tl",
    "Tagalog",
    _nouns(
        "pusa, pusa",
        "aso, aso",
        "kabayo, kabayo",
        "baka, baka",
        "ibon, ibon",
        "leon, leon",
        "kuneho, kuneho",
        "elepante, elepante",
    ),
    _words("itim, puti, pula, berde, dilaw, asul"),
    # The linker: -ng behind a vowel, a word of its own behind a consonant.
    _words("itim na, puting, pulang, berdeng, dilaw na, asul na"),
    _words("natutulog, kumakain, umiinom ng tubig, tumatakbo, tumatalon, naglalaro"),
    _words("tatlong, apat na, limang, anim na, pitong, walong, siyam na, sampung"),
    {
        "is": "{colour} ang {one}.",
        "sees": "nakakakita ako ng {number} {many}.",
        "does": "{verb} ang {one}.",
        "both": "{verb} ang {attribute} {one}.",
    },
)

_THAI_COLOURS = _all(_words("ดำ, ขาว, แดง, เขียว, เหลือง, น้ำเงิน"), "สี{}")

THAI = Language(
    "th",
    "Thai",
    _nouns(
        "แมว, แมว",
        "สุนัข, สุนัข",
        "ม้า, ม้า",
        "วัว, วัว",
        "นก, นก",
        "สิงโต, สิงโต",
        "กระต่าย, กระต่าย",
        "ช้าง, ช้าง",
    ),
    _THAI_COLOURS,
    _THAI_COLOURS,
    _words("นอนหลับ, กินอาหาร, ดื่มน้ำ, วิ่ง, กระโดด, เล่น"),
    _words("สาม, สี่, ห้า, หก, เจ็ด, แปด, เก้า, สิบ"),
    # No spaces between words, and no full stop: the end of the line ends a sentence.
    {
        "is": "{one}ตัวนั้นมี{colour}",
        "sees": "ฉันเห็น{many}{number}ตัว",
        "does": "{one}ตัวนั้น{verb}",
        "both": "{one}{attribute}ตัวนั้น{verb}",
    },
)

_VIETNAMESE_COLOURS = _all(_words("đen, trắng, đỏ, xanh lá cây, vàng, xanh dương"), "màu {}")

VIETNAMESE = Language(
    "vi",
    "Vietnamese",
    _nouns(
        "mèo, mèo",
        "chó, chó",
        "ngựa, ngựa",
        "bò, bò",
        "chim, chim",
        "sư tử, sư tử",
        "thỏ, thỏ",
        "voi, voi",
    ),
    _VIETNAMESE_COLOURS,
    _VIETNAMESE_COLOURS,
    _words("ngủ, ăn, uống nước, chạy, nhảy, chơi đùa"),
    _words("ba, bốn, năm, sáu, bảy, tám, chín, mười"),
    {
        "is": "con {one} có {colour}.",
        "sees": "tôi thấy {number} con {many}.",
        "does": "con {one} {verb}.",
        "both": "con {one} {attribute} {verb}.",
    },
)

LANGUAGES = (
    ARABIC,
    ENGLISH,
    FRENCH,
    GERMAN,
    HINDI,
    INDONESIAN,
    ITALIAN,
    PORTUGUESE,
    SPANISH,
    TAGALOG,
    THAI,
    VIETNAMESE,
)
"""In the order of their English names."""
