"""Chat templates of checkpoints: what they may do, and what they cannot."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat import Image, Llama4Format, Message, Rendered, Special, ToolCall
from llama4_core.chat.template import MAX_TEMPLATE, TemplateFormat
from llama4_core.errors import ChatError
from llama4_core.testing import conformance_tests
from llama4_core.testing.chat_strategies import SPECIALS, TEXT

# Llama 4's format without tools, as a template would have it.
FAITHFUL = """\
{{- bos_token }}
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|header_start|>' + role + '<|header_end|>\n\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {{- '<|image|>' if part.type == 'image' else part.text }}
        {%- endfor %}
    {%- endif %}
    {%- if message.tool_calls %}
        {{- '<|python_start|>[' }}
        {%- for call in message.tool_calls %}
            {{- ('' if loop.first else ', ') + call.function.name }}
            {{- '(**' + call.function.arguments | tojson + ')' }}
        {%- endfor %}
        {{- ']<|python_end|>' }}
    {%- endif %}
    {{- '<|eom|>' if message.tool_calls or role == 'ipython' else '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header_start|>assistant<|header_end|>\n\n' }}
{%- endif %}
"""
TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot|>"}


def make(folder=None, source=FAITHFUL):
    return TemplateFormat(folder, source=source, specials=SPECIALS, tokens=TOKENS)


test_a_faithful_template_conforms = conformance_tests("chat_formats", "faithful", target=make)


def render(source, content="x", **settings):
    return make(source=source).render([Message("user", content)], **settings)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**TOKENS, "eos_token": {"content": "<|eot|>"}, "chat_template": FAITHFUL})
    )
    added = [{"content": name, "id": 256 + i} for i, name in enumerate(SPECIALS)]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    return tmp_path


def test_is_read_from_the_folder(folder):
    messages = [Message("user", ["Hi", Image()])]
    form = TemplateFormat(folder)
    assert form.stops == ("<|eot|>", "<|eom|>")
    assert form.render(messages).images == (Image(),)
    assert form.render(messages).text == Llama4Format().render(messages).text
    (folder / "chat_template.jinja").write_text("{{ messages[0].role }}")
    assert TemplateFormat(folder).render([Message("user", "x")]).text == "user"


def test_with_metas_tokenizer_the_specials_are_those_of_llama_4(folder):
    (folder / "tokenizer.json").unlink()
    form = TemplateFormat(folder)
    assert form.stops == ("<|eot|>", "<|eom|>")
    messages = [Message("user", "Hi <|eot|>")]
    rendered = form.render(messages)
    assert rendered.text == Llama4Format().render(messages).text
    assert rendered.segments.count(Special("<|eot|>")) == 1
    (folder / "tokenizer.json").write_text('{"added_tokens": [3]}')
    with pytest.raises(ChatError, match="added tokens"):
        TemplateFormat(folder)


def test_of_several_the_default_is_taken(folder):
    several = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert TemplateFormat(folder).render([]).text == "yes"


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "no template"), ("[", "cannot be read"), ('{"chat_template": 3}', "is a int")],
)
def test_folders_without_one_say_so(tmp_path, content, words):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ChatError, match=words):
        TemplateFormat(tmp_path)


def test_without_jinja2_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "llama4_core.chat.sandbox", raising=False)
    with pytest.raises(ChatError, match=r"llama4-core\[templates\]"):
        __import__("llama4_core.chat.sandbox")


@given(TEXT, TEXT)
def test_content_comes_back_unchanged(one, two):
    messages = [Message("user", one), Message("assistant", two, [ToolCall("f", {"a": one})])]
    assert make().parse(make().render(messages)) == messages


@given(st.sampled_from([" | tojson", " | tojson(ensure_ascii=True)", " | trim", " | upper"]), TEXT)
def test_the_mark_never_shows(way, text):
    got = render("{{ messages[0].content" + way + " }}", text).text
    plain = text.replace("\ue000", "")
    expected = {
        " | tojson": json.dumps(text, ensure_ascii=False),
        " | tojson(ensure_ascii=True)": json.dumps(text),
        " | trim": text.strip(),
        " | upper": text.upper(),
    }[way]
    assert got == expected, plain


def test_tools_and_the_date_reach_the_template():
    source = "{{ tools[0].function.name }} {{ strftime_now('%Y') | length }}"
    tool = {"type": "function", "function": {"name": "<|eot|>"}}
    rendered = render(source, tools=[tool])
    assert rendered.segments == ("<|eot|> 4",)
    assert render("{{ tools is none }}").text == "True"


def test_a_lost_image_is_an_error():
    with pytest.raises(ChatError, match="0 of 1 images"):
        make(source="{{ messages[0].role }}").render([Message("user", [Image()])])
    # One that a user spells is no image.
    assert render("{{ messages[0].content }}", "<|image|>").segments == ("<|image|>",)


def test_generation_blocks_are_their_content():
    assert render("a{% generation %}b{% endgeneration %}c").text == "abc"


# A text that would grow from 9,999 characters to more than memory holds; a list that is short and
# would be written with 2^60 numbers.
GROWN = (
    "{{% set ns = namespace(s='x' * 9999) %}}{{% for i in range(60) %}}"
    "{{% set ns.s = {} %}}{{% endfor %}}"
)
NESTED = (
    "{{% set ns = namespace(s=[1]) %}}{{% for i in range(60) %}}"
    "{{% set ns.s = [ns.s, ns.s] %}}{{% endfor %}}{}"
)


TWICE = NESTED.replace("s=[1]", "s=[1], t=[1]").replace(
    "{{% set ns.s =", "{{% set ns.t = [ns.t, ns.t] %}}{{% set ns.s ="
)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('no system') }}", "no system"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "Security"),
        ("{{ messages.append(1) }}", "Security"),
        ("{{ (''|attr('__class__')).x }}", "Security|Undefined"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "Undefined"),
        ("{{ self.__init__.__globals__ }}", "Security"),
        ("{{ range.__self__.x }}", "Security"),
        ("{{ strftime_now.__globals__.x }}", "Security"),
        ("{{ raise_exception.__globals__.x }}", "Security"),
        ("{% include 'other' %}", "cannot be applied"),
        ("{% import '/etc/passwd' as x %}", "cannot be applied"),
        ("{{ 'x' * 1000000000 }}", "repetition"),
        ("{{ 1000000000 * [1] }}", "repetition"),
        ("{{ 9 ** 999999999 }}", "not available"),
        ("{{ '%1000000000d' % 1 }}", "not available"),
        ("{{ '{:1000000000}'.format(1) }}", "not available"),
        ("{{ 'x'.ljust(1000000000) }}", "not available"),
        ("{{ 'x'['format'](1) }}", "not available"),
        ("{{ ('{:1000000000}' | attr('format'))(1) }}", "not available"),
        ("{{ [1] | tojson(indent=1000000000) }}", "indent"),
        ("{% for i in range(2000000) %}{% endfor %}", "steps"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", "characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "Recursion"),
        (
            "{% set a = [1] * 9999 %}{% for b in a %}{% for c in a %}{% endfor %}{% endfor %}",
            "step",
        ),
        (GROWN.format("ns.s + ns.s"), "a text or list"),
        (GROWN.format("ns.s ~ ns.s"), "a text or list"),
        (GROWN.format("ns.s.replace('x', ns.s)"), "a text or list"),
        (GROWN.format("ns.s | replace('x', ns.s)"), "a text or list"),
        (GROWN.format("ns.s.join([ns.s] * 9999)"), "a text or list"),
        (GROWN.format("([ns.s] * 9999) | join(ns.s)"), "a text or list"),
        (GROWN.format("([ns.s] * 9999) | string"), "a text or list"),
        ("{% set x %}{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}{% endset %}", "a text"),
        (NESTED.format("{{ ns.s }}"), "steps"),
        (NESTED.format("{{ ns.s | tojson }}"), "steps"),
        (NESTED.format("{{ ns }}"), "namespace"),
        (TWICE.format("{{ ns.s == ns.t }}"), "steps"),
        (TWICE.format("{{ ns.s in [ns.t] }}"), "steps"),
        (TWICE.format("{{ ns.s is eq ns.t }}"), "steps"),
        (TWICE.format("{{ [ns.s] | select('eq', ns.t) | list }}"), "steps"),
        (TWICE.format("{{ [ns.s, ns.t] | map('list') | sort }}"), "steps"),
        (TWICE.format("{{ [ns.s].index(ns.t) }}"), "steps"),
        ("{{ ('%1000000000d'.encode() % 1) | length }}", "not available"),
        ("{{ (1).to_bytes(1000000000, 'little') }}", "not available"),
        ("{{ ('x' * 9999).translate({120: 'x' * 9999}) }}", "not available"),
    ],
)
def test_the_sandbox_holds(source, words):
    with pytest.raises(ChatError, match=words):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ 'x' | center(9) }}",
        "{{ [] | batch(1000000000, 1) }}",
        "x" * (MAX_TEMPLATE + 1),
    ],
)
def test_bad_templates_are_refused_at_once(source):
    with pytest.raises(ChatError, match="template"):
        make(source=source)


def test_loops_and_joined_texts_are_those_of_jinja():
    source = (
        "{% for a in [3, 4] %}{{ loop.index ~ '/' ~ loop.length ~ ':' ~ a }}"
        "{{ '' if loop.last else ', ' }}{% endfor %};"
        "{% for a in missing %}{% else %}none{% endfor %};"
        "{% for k, v in {'a': 1, 'b': 0}.items() if v %}{{ k ~ v }}{% endfor %};"
        "{% for a in [[1, [2]]] recursive %}{{ loop(a) if a is sequence else a }}{% endfor %};"
        "{{ ', '.join(['a', 'b']) }};{{ [{'n': 1}, {'n': 2}] | join('+', attribute='n') }};"
        "{{ 'aaa'.replace('a', 'b', 1) }};{{ 'aaa' | replace('a', 'b') }};{{ none }}{{ missing }}"
    )
    assert render(source).text == "1/2:3, 2/2:4;none;a1;12;a, b;1+2;baa;bbb;None"


def test_comparisons_are_those_of_jinja():
    source = (
        "{{ 1 < 2 <= 2 }} {{ 'a' in ['a'] }} {{ 'b' not in {'a': 1} }} {{ missing == 3 }} "
        "{{ [3, 1] | sort }} {{ [{'n': 2}] | selectattr('n', 'equalto', 2) | list | length }} "
        "{{ 2 is eq 2 }} {{ [1, 2] | reject('gt', 1) | first }} {{ ['b'] | map('upper') | max }}"
        "{% filter upper %}x{% endfilter %} {{ range(3) | select('in', [1]) | list }}"
    )
    assert render(source).text == "True True True False [1, 3] 1 True 1 BX [1]"


def test_other_formats_are_rendered_but_not_parsed():
    form = TemplateFormat(source="[INST] {{ messages[0].content }} [/INST]", specials=["[INST]"])
    rendered = form.render([Message("user", "a [INST] b")])
    assert rendered.segments[1:] == (" a [INST] b [/INST]",)
    assert isinstance(rendered, Rendered)
    with pytest.raises(ChatError, match="a message begins with"):
        form.parse(rendered)


def test_renders_as_transformers_does():
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [
        {"role": "system", "content": " Be <brief>. "},
        {"role": "user", "content": "é\n"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {"a": "<b>"}}}
            ],
        },
        {"role": "tool", "content": "42"},
    ]
    (expected,), _ = render_jinja_template(
        [messages], chat_template=FAITHFUL, add_generation_prompt=True, **TOKENS
    )
    assert make().render(messages).text == expected
