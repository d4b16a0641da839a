from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ComponentError, OverrideError
from llama4_core.plugins import Catalogue
from llama4_core.plugins.choose import Assembler, Unavailable
from llama4_core.plugins.overrides import Named, Overrides
from llama4_core.plugins.regimes import Regime, RegimeTable
from llama4_core.plugins.report import AssemblyReport
from llama4_core.protocols.problems import AttentionProblem, ExpertProblem

ATTENTION = AttentionProblem(heads=4, kv_heads=2, head_dim=8)
EXPERTS = ExpertProblem(experts=4, top_k=1, hidden=8, width=16)


class Built:
    """A stand-in for a backend."""

    def __init__(self, name: str = "") -> None:
        self.name = name


HERE = f"{__name__}:Built"


def no_grad(problem) -> str | None:
    return "forward only" if problem.grad else None


@pytest.fixture(scope="session")
def catalogue_of(plugin, component):
    """A catalogue of one distribution of ours with these attention and expert backends."""

    def make(*, distribution="llama4-moe", allow=None, **sockets) -> Catalogue:
        offers = {
            socket: [
                component(name, target="builtins:dict", settings={"name": name}, **facts)
                for name, facts in offer.items()
            ]
            for socket, offer in sockets.items()
        }
        return Catalogue.from_plugins([("x", distribution, "1.0", plugin(**offers))], allow=allow)

    return make


def rows(table: RegimeTable) -> list[tuple[int | None, bool | None, str]]:
    return [(row.max_tokens, row.grad, row.name) for row in table.rows]


def experts(known: Catalogue, name: str = "auto", overrides=None, problem=EXPERTS):
    parts = Assembler(known, Overrides(overrides))
    return parts.child("layers.0").child("feed_forward").regimes(
        "expert_backends", "backend", name, problem
    ), parts


def attention(known: Catalogue, name: str = "auto", overrides=None, problem=ATTENTION):
    parts = Assembler(known, Overrides(overrides))
    return parts.child("layers.0").child("attention").regimes(
        "attention_backends", "backend", name, problem
    ), parts


# --- regimes ----------------------------------------------------------------------------------


def test_one_backend_for_everything_is_one_row(catalogue_of) -> None:
    table, parts = experts(catalogue_of(expert_backends={"loop": {"priority": 1}}))
    assert rows(table) == [(None, None, "loop")]
    assert parts.report.choices["layers.0.feed_forward.backend"].rows[0].regime == "always"


def test_regimes_by_tokens_and_gradients(catalogue_of) -> None:
    known = catalogue_of(
        expert_backends={
            "loop": {"priority": 5},
            "small": {"priority": lambda p: 9 if p.tokens <= 8 else 0, "supports": no_grad},
            "large": {"priority": lambda p: 9 if p.tokens > 256 else 0},
            "never": {"priority": 0},
        }
    )
    table, parts = experts(known)
    assert rows(table) == [
        (8, False, "small"),
        (256, False, "loop"),
        (None, False, "large"),
        (256, True, "loop"),
        (None, True, "large"),
    ]
    picked = {(n, g): table.pick(n, g)["name"] for n in (1, 8, 9, 256, 257) for g in (False, True)}
    assert picked == {
        (1, False): "small",
        (8, False): "small",
        (9, False): "loop",
        (256, False): "loop",
        (257, False): "large",
        (1, True): "loop",
        (8, True): "loop",
        (9, True): "loop",
        (256, True): "loop",
        (257, True): "large",
    }
    refused = {(r.name, r.regimes, r.reason) for r in parts.report.choices[parts.slots[0]].refused}
    assert ("never", (), "never chosen unless named") in refused
    assert ("small", ("with gradients",), "forward only") in refused


@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=6))
def test_the_merged_table_answers_as_the_six_rows_do(catalogue_of, winners: list[str]) -> None:
    cells = {
        (t, g): winners[i]
        for i, (g, t) in enumerate((g, t) for g in (0, 1) for t in (8, 256, 4096))
    }

    def priority(name: str):
        return lambda problem: 9 if cells[problem.tokens, problem.grad] == name else 1

    known = catalogue_of(expert_backends={name: {"priority": priority(name)} for name in "abc"})
    table, _ = experts(known)
    for tokens, asked in ((1, 8), (8, 8), (9, 256), (256, 256), (257, 4096), (10**6, 4096)):
        for grad in (False, True):
            assert table.pick(tokens, grad)["name"] == cells[asked, grad]
    for first, second in zip(table.rows, table.rows[1:], strict=False):
        assert (first.grad, first.name) != (second.grad, second.name)


def test_one_instance_per_component_across_rows_and_layers(catalogue_of) -> None:
    known = catalogue_of(expert_backends={"loop": {"priority": 1}})
    parts = Assembler(known)
    tables = [
        parts.child(f"layers.{i}").regimes(
            "expert_backends", "backend", "auto", replace(EXPERTS, width=w)
        )
        for i, w in enumerate((16, 16, 32))
    ]
    assert tables[0] is tables[1]
    assert tables[2].rows[0].call is tables[0].rows[0].call


def test_equal_ranks_are_ordered_by_name(catalogue_of) -> None:
    known = catalogue_of(attention_backends={n: {"priority": 3} for n in ("b", "a", "c")})
    assert rows(attention(known)[0]) == [(None, None, "a")]


def test_a_candidate_must_serve_flat_and_cached_keys(catalogue_of) -> None:
    def flat_only(problem):
        return None if problem.key_layout == "flat" else "flat keys only"

    def no_flat_inference(problem):
        return "no packed inference" if problem.key_layout == "flat" and not problem.grad else None

    known = catalogue_of(
        attention_backends={
            "flat": {"priority": 9, "supports": flat_only},
            "cached": {"priority": 5, "supports": no_flat_inference},
            "eager": {"priority": 1},
        }
    )
    table, _ = attention(known)
    assert rows(table) == [(None, False, "eager"), (None, True, "flat")]
    for name, reason in (("flat", "flat keys only"), ("cached", "no packed inference")):
        with pytest.raises(ComponentError, match=reason):
            attention(known, name)


def test_foreign_components_are_chosen_only_when_allow_listed(catalogue_of) -> None:
    offer = {"attention_backends": {"fast": {"priority": 99}}}
    known = catalogue_of(distribution="foreign", **offer)
    with pytest.raises(ComponentError, match="fast: installed by a third party"):
        attention(known)
    assert rows(attention(known, "fast")[0]) == [(None, None, "fast")]
    assert rows(attention(catalogue_of(distribution="foreign", allow=["foreign"], **offer))[0]) == [
        (None, None, "fast")
    ]


def test_nothing_that_can_run_is_an_error_with_every_reason(catalogue_of) -> None:
    known = catalogue_of(
        attention_backends={
            "a": {"priority": 1, "supports": lambda p: "needs a unicorn"},
            "b": {"priority": 1, "requires": ("no_such_module",)},
        }
    )
    with pytest.raises(ComponentError) as caught:
        attention(known)
    assert "layers.0.attention.backend" in str(caught.value)
    assert "a: needs a unicorn" in str(caught.value)
    assert "b: needs the module(s) no_such_module" in str(caught.value)


def test_without_gradients_only_the_row_with_them_raises_on_use(catalogue_of) -> None:
    known = catalogue_of(attention_backends={"fast": {"priority": 1, "supports": no_grad}})
    for name in ("fast", "auto"):
        table, parts = attention(known, name)
        assert table.pick(5, False) == {"name": "fast"}
        missing = table.pick(5, True)
        for use in (missing, missing.plan):
            with pytest.raises(ComponentError, match=r"with gradients.*forward only"):
                use("anything")
        assert "forward only" in parts.report.choices[parts.slots[0]].rows[1].error


def test_an_explicit_name_that_cannot_run_is_an_error_with_its_reason(catalogue_of) -> None:
    known = catalogue_of(
        expert_backends={
            "picky": {"supports": lambda p: "at most 8 tokens" if p.tokens > 8 else None},
            "loop": {"priority": 1},
        }
    )
    with pytest.raises(ComponentError) as caught:
        experts(known, "picky")
    assert str(caught.value) == (
        "layers.0.feed_forward.backend: expert_backend 'picky' of llama4-moe cannot run here: "
        "at most 8 tokens; name another, or 'auto'"
    )


def test_broken_supports_and_priorities_are_refusals(catalogue_of) -> None:
    def broken(problem):
        raise ZeroDivisionError("oops")

    known = catalogue_of(
        expert_backends={
            "a": {"priority": 9, "supports": broken},
            "b": {"priority": broken},
            "c": {"priority": lambda p: None},
            "loop": {"priority": 1},
        }
    )
    table, parts = experts(known)
    assert rows(table) == [(None, None, "loop")]
    reasons = {r.name: r.reason for r in parts.report.choices[parts.slots[0]].refused}
    assert reasons == {
        "a": "its supports() raised ZeroDivisionError: oops",
        "b": "its priority raised ZeroDivisionError: oops",
        "c": "its priority is None; expected a whole number",
    }


# --- overrides and building -------------------------------------------------------------------


def test_build_passes_arguments_and_settings(catalogue_of) -> None:
    parts = Assembler(catalogue_of(routers={"r": {}})).child("layers.3").child("feed_forward")
    assert parts.path == "layers.3.feed_forward"
    assert parts.build("routers", "router", "r", [("hidden", 8)], top_k=2) == {
        "hidden": 8,
        "name": "r",
        "top_k": 2,
    }
    assert parts.slots == ("layers.3.feed_forward.router",)


def test_overrides_take_names_classes_functions_and_ready_objects(catalogue_of) -> None:
    known = catalogue_of(caches={"full": {}, "bounded": {}})

    class Ready:
        def __call__(self) -> None: ...

    ready = Ready()
    made = {
        "full": {"name": "full"},
        Built: Built,
        functools.partial(Built, "partial"): Built,
        (lambda *a: [*a]): list,
        ready: Ready,
    }
    for value, expected in made.items():
        parts = Assembler(known, Overrides({"cache": value}))
        built = parts.build("caches", "cache", "bounded")
        if isinstance(expected, type):
            assert type(built) is expected
        else:
            assert built == expected
        choice = parts.finish().choices["cache"]
        assert choice.override == "cache"
        assert choice.rows[0].provider.distribution == (
            "llama4-moe" if value == "full" else "object"
        )
    assert built is ready


def test_an_object_for_a_backend_is_one_row_and_shared(catalogue_of) -> None:
    known = catalogue_of(expert_backends={"loop": {"priority": 1}})
    parts = Assembler(known, Overrides({"**.backend": Built}))
    first, second = (
        parts.child(f"layers.{i}").regimes("expert_backends", "backend", "auto", EXPERTS)
        for i in (0, 1)
    )
    assert isinstance(first.pick(1, True), Built)
    assert first.pick(1, True) is second.pick(9, False)


def test_a_builder_that_does_not_take_the_arguments_is_explained(catalogue_of) -> None:
    known = catalogue_of(routers={"r": {}})
    parts = Assembler(known, Overrides({"router": lambda hidden: None}))
    with pytest.raises(OverrideError, match="cannot be called to build the part"):
        parts.build("routers", "router", "r", 8, 4, 1)


def test_an_unknown_name_in_an_override_names_the_override(catalogue_of) -> None:
    known = catalogue_of(expert_backends={"loop": {"priority": 1}})
    with pytest.raises(ComponentError) as caught:
        experts(known, overrides={"**.backend": "lop"})
    assert str(caught.value).startswith(
        "override '**.backend' (layers.0.feed_forward.backend): unknown expert-backend 'lop': "
        "did you mean 'loop'?"
    )


def test_unused_overrides_are_found_at_the_end(catalogue_of) -> None:
    known = catalogue_of(expert_backends={"loop": {"priority": 1}})
    _, parts = experts(known, overrides={"layers.7.feed_forward.backend": "loop"})
    with pytest.raises(OverrideError, match=r"nearest are layers\.\*\.feed_forward\.backend"):
        parts.finish()


def test_auto_without_a_problem_takes_the_highest_rank(catalogue_of) -> None:
    parts = Assembler(catalogue_of(caches={"full": {"priority": 1}, "bounded": {"priority": 2}}))
    assert parts.factory("caches", "cache", "auto")() == {"name": "bounded"}
    with pytest.raises(ComponentError, match="pip install llama4-core"):
        Assembler(Catalogue.from_plugins([])).factory("caches", "cache", "auto")


def test_a_missing_package_is_named_with_the_model_that_needs_it() -> None:
    known = Catalogue.from_plugins(
        [("core", "llama4-core", "0.1.0", "llama4_core.plugins.builtin")]
    )
    parts = Assembler(known, report=AssemblyReport("Scout"))
    with pytest.raises(ComponentError) as caught:
        parts.child("layers.0").build("feed_forwards", "feed_forward", "moe")
    assert str(caught.value) == (
        "Scout needs feed-forward 'moe', which no installed package offers: pip install llama4-moe"
    )


def test_a_missing_module_refuses_an_explicit_name(catalogue_of) -> None:
    parts = Assembler(catalogue_of(caches={"x": {"requires": ("no_such_module",)}}))
    with pytest.raises(ComponentError, match="no_such_module"):
        parts.build("caches", "cache", "x")


def test_clashing_names_show_their_distribution(plugin, component) -> None:
    known = Catalogue.from_plugins(
        [
            ("a", "llama4-moe", "1", plugin(expert_backends=[component("loop", priority=1)])),
            ("b", "foreign", "1", plugin(expert_backends=[component("loop", priority=9)])),
        ]
    )
    assert rows(experts(known)[0]) == [(None, None, "llama4-moe/loop")]
    assert rows(experts(known, "foreign/loop")[0]) == [(None, None, "foreign/loop")]


def test_the_last_row_of_a_table_always_holds() -> None:
    table = RegimeTable((Regime(8, False, "a", 1), Regime(8, True, "b", 2)))
    assert table.pick(9, False) == 2
    assert isinstance(RegimeTable.always(Unavailable("x")).pick(1, True), Unavailable)


# --- settings ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tuned(plugin, component) -> Catalogue:
    """Parts with settings; the second comes with some of its own, the third has none."""
    routers = [
        component("plain", target="textwrap:TextWrapper"),
        component("quick", target="textwrap:TextWrapper", settings={"tabsize": 5, "max_lines": 3}),
        component("bare", target="string:Template"),
    ]
    return Catalogue.from_plugins([("x", "llama4-moe", "1.0", plugin(routers=routers))])


@given(size=st.integers(1, 9), layer=st.integers(0, 3))
def test_settings_reach_the_named_part_and_no_other(tuned, size, layer) -> None:
    values = {f"layers.[{layer}].router": Named("quick", {"tabsize": size})}
    parts = Assembler(tuned, Overrides(values))
    for number in range(4):
        part = parts.child(f"layers.{number}").build("routers", "router", "plain", 7)
        found = (part.width, part.tabsize, part.max_lines)
        assert found == ((7, size, 3) if number == layer else (7, 8, None))
    # By its name in the report, as without settings.
    row = parts.finish().choices[f"layers.{layer}.router"].rows[0]
    assert (row.provider.name, row.provider.distribution) == ("quick", "llama4-moe")


def test_backends_of_other_settings_are_other_parts(catalogue_of) -> None:
    known = catalogue_of(expert_backends={"loop": {"priority": 1}})
    values = {"layers.1.**": Named("loop", {"x": 1}), "layers.2.**": Named("loop", {"x": 2})}
    parts = Assembler(known, Overrides(values))
    tables = [
        parts.child(f"layers.{n}").regimes("expert_backends", "backend", "loop", EXPERTS)
        for n in range(3)
    ]
    picked = [table.pick(1, False) for table in tables]
    assert picked == [{"name": "loop"}, {"name": "loop", "x": 1}, {"name": "loop", "x": 2}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Named("plain", {"tabsiz": 1}), r"plain has no setting 'tabsiz' .*'tabsize'.* it has "),
        (Named("bare", {"template": "x"}), "bare has no setting 'template'; it has none"),
        (Named("auto", {"tabsize": 1}), "gives settings to 'auto'"),
        (Named("", {}), "expected the name"),
    ],
)
def test_settings_that_cannot_be(tuned, value, said) -> None:
    with pytest.raises(OverrideError, match=said):
        Assembler(tuned, Overrides({"router": value})).build("routers", "router", "plain", 8)


def test_equal_names_with_equal_settings_do_not_clash() -> None:
    both = Overrides({"*": Named("a", {"x": 1}), "router": Named("a", {"x": 1})})
    assert both.take("router").part == "a"
    with pytest.raises(OverrideError, match="both address"):
        Overrides({"*": Named("a", {"x": 1}), "router": Named("a", {"x": 2})}).take("router")
