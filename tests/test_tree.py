"""Trees: from a path and some processors to chains and their ends, without reading a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from assetd.processor import Matcher, Namer, Names, Options, Processor, Step, same_name, suffix
from assetd.tree import NODE_LIMIT, Node, Tree, TreeError, grow, include_only, is_safe_name


@dataclass(frozen=True)
class Taker:
    """A processor with its options."""

    processor: Processor
    options: Mapping[str, Any] = field(default_factory=dict)


def idle(_step: Step) -> None:
    """A tree is grown without running anybody."""


def becomes(*endings: str, companions: tuple[str, ...] = ()) -> Namer:
    """Names for outputs: the path's stem with each of *endings*."""

    def names(path: str, _options: Options) -> Names:
        stem = path.split(".", 1)[0]
        return Names(tuple(stem + e for e in endings), tuple(stem + c for c in companions))

    return names


def taker(name: str, matches: str | Matcher, outputs: Namer = same_name, /, **more: Any) -> Taker:
    taken = suffix(matches) if isinstance(matches, str) else matches
    return Taker(
        Processor(name=name, version="1", matches=taken, outputs=outputs, process=idle, **more)
    )


COPY = taker("copy", lambda _path, _options: True, ends=True)
MIN = taker("min", suffix(".js"), becomes(".min.js", companions=(".min.js.map",)))


def test_a_chain_goes_on_with_what_the_one_before_makes() -> None:
    """Each output is offered to the processors in order; what nobody takes is a leaf."""
    concat = taker("concat", ".concat", becomes(".js"))
    assert Tree(
        (
            Node("concat", "app.concat", None, ("app.js",)),
            Node("min", "app.js", 0, ("app.min.js",), ("app.min.js.map",)),
        ),
        (("app.min.js", 1), ("app.min.js.map", 1)),
    ) == grow("app.concat", (concat, MIN))


def test_the_first_that_matches_takes_a_path() -> None:
    """The order of the takers is the order of asking, at every node."""
    first, second = taker("first", ".js", same_name), taker("second", ".js", same_name)
    for pair in ((first, second), (second, first)):
        tree = grow("a.js", pair)
        assert tree is not None
        assert [t.processor.name for t in pair] == [n.processor for n in tree.nodes]


def test_a_copy_ends_the_branch_that_it_takes() -> None:
    """Its outputs are leaves, offered to nobody, wherever in the tree it stands."""
    later = taker("later", lambda _path, _options: True)
    assert Tree((Node("copy", "a.png", None, ("a.png",)),), (("a.png", 0),)) == grow(
        "a.png", (COPY, later)
    )
    tree = grow("a.js", (MIN, COPY))
    assert tree is not None
    assert [n.processor for n in tree.nodes] == ["min", "copy"]
    assert dict(tree.leaves) == {"a.min.js": 1, "a.min.js.map": 0}


def test_branches_use_processors_each_for_itself() -> None:
    """What one branch has used, its sibling still may."""
    split = taker("split", ".page", becomes(".js", "-extra.js"))
    tree = grow("a.page", (split, MIN))
    assert tree is not None
    assert [(n.processor, n.parent) for n in tree.nodes][:2] == [("split", None), ("min", 0)]
    assert [n.path for n in tree.nodes if n.processor == "min"] == ["a.js", "a-extra.js"]


def test_two_processors_that_feed_each_other_come_to_an_end() -> None:
    """A branch uses each of them once."""
    up, down = taker("up", ".low", becomes(".high")), taker("down", ".high", becomes(".low"))
    tree = grow("a.low", (up, down))
    assert tree is not None
    assert ([n.processor for n in tree.nodes], tree.leaves) == (["up", "down"], (("a.low", 1),))


def doubling(levels: int) -> list[Taker]:
    """Takers that each make two of one: a tree of 2**levels - 1 nodes."""

    def twice(path: str, _options: Options) -> Names:
        return Names((path + "0", path + "1"))

    return [taker(f"p{n}", lambda _path, _options: True, twice) for n in range(levels)]


def test_a_tree_that_grows_without_measure_is_an_error_that_names_the_two() -> None:
    """The limit is on the nodes; just below it a tree is a tree."""
    tree = grow("a", doubling(6))
    assert tree is not None
    assert (len(tree.nodes), len(tree.leaves)) == (NODE_LIMIT - 1, NODE_LIMIT)
    with pytest.raises(TreeError, match=rf"more than {NODE_LIMIT} nodes: do p\d and p\d feed"):
        grow("a", doubling(7))


def test_a_companion_belongs_to_the_deepest_node_that_makes_it() -> None:
    """The map of the minified file replaces the one of the file before it."""
    sass = taker("sass", ".scss", becomes(".css", companions=(".css.map",)))
    minify = taker("minify", ".css", becomes(".css", companions=(".css.map",)))
    tree = grow("a.scss", (sass, minify))
    assert tree is not None
    assert dict(tree.leaves) == {"a.css": 1, "a.css.map": 1}
    assert tuple(n.companions for n in tree.nodes) == (("a.css.map",), ("a.css.map",))
    alone = grow("a.scss", (sass, taker("banner", ".css", becomes(".css"))))
    assert alone is not None
    assert dict(alone.leaves) == {"a.css": 1, "a.css.map": 0}


def test_what_is_only_there_to_be_included_is_no_source_for_anybody() -> None:
    """Whatever other processors match it."""
    sass = taker("sass", ".scss", becomes(".css"), include_only=lambda p, _o: p.startswith("_"))
    assert include_only("_vars.scss", (COPY, sass)) == "sass"
    assert include_only("vars.scss", (COPY, sass)) is None
    assert grow("_vars.scss", (COPY, sass)) is None
    assert grow("vars.scss", (sass,)) is not None


def test_a_path_that_nobody_takes_has_no_tree() -> None:
    """It is no source."""
    assert grow("a.png", (MIN,)) is None
    assert grow("a.png", ()) is None


def test_a_bypassing_root_stands_alone_and_names_no_leaves() -> None:
    """It names its outputs only by making them, and `outputs` is not asked."""

    def unasked(_path: str, _options: Options) -> Names:
        raise AssertionError("nobody may ask")

    bundle = taker("bundle", ".js", unasked, bypass=True)
    assert Tree((Node("bundle", "a.js", None, ()),), (), bypass=True) == grow(
        "a.js", (bundle, MIN, COPY)
    )
    sometimes = taker("some", ".js", becomes(".js"), bypass=lambda p, _o: p.startswith("b"))
    assert [
        (tree.bypass, tree.leaves)
        for path in ("b.js", "a.js")
        if (tree := grow(path, (sometimes,))) is not None
    ] == [(True, ()), (False, (("a.js", 0),))]


def test_a_bypassing_processor_takes_no_intermediate() -> None:
    """Its outputs would not be known when the branch is planned: the next one is asked."""
    coffee = taker("coffee", ".coffee", becomes(".js"))
    always = taker("bundle", ".js", bypass=True)
    sometimes = taker("bundle", ".js", bypass=lambda p, _o: p.startswith("b"))
    for bundle in (always, sometimes):
        alone = Tree((Node("coffee", "b.coffee", None, ("b.js",)),), (("b.js", 0),))
        assert grow("b.coffee", (coffee, bundle)) == alone
        tree = grow("b.coffee", (coffee, bundle, MIN))
        assert tree is not None
        assert [n.processor for n in tree.nodes] == ["coffee", "min"]
        assert not tree.bypass
    tree = grow("a.coffee", (coffee, sometimes))
    assert tree is not None
    assert [n.processor for n in tree.nodes] == ["coffee", "bundle"]


def test_a_bypass_that_raises_of_an_intermediate_is_an_error() -> None:
    """As of a source."""
    coffee = taker("coffee", ".coffee", becomes(".js"))
    with pytest.raises(TreeError, match=r"^bad: bypass\('a\.js'\) raised KeyError: 'a\.js'$"):
        grow("a.coffee", (coffee, taker("bad", ".js", bypass=broken)))


UNSAFE: tuple[Any, ...] = ("../a", "/a", "a/../b", "a//b", "a/", "./a", "", "\0", "a" * 4096, None)


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("companion", [False, True])
def test_a_name_outside_the_output_root_is_an_error(name: Any, companion: bool) -> None:
    """An output is a relative path that stays where it starts."""
    names = Names(("ok",), (name,)) if companion else Names((name,))
    with pytest.raises(TreeError, match=r"^evil would make .*no path below the output root$"):
        grow("a.js", (taker("evil", ".js", lambda _path, _options: names),))
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["a", "a/b.css", "...", "a b/é", ".hidden", "a" * 4095])
def test_a_strange_name_below_the_output_root_is_none_the_worse(name: str) -> None:
    """Only what leaves the root is refused."""
    assert is_safe_name(name)


@pytest.mark.parametrize(
    "names", [Names(()), Names(("a", "a")), Names(("a",), ("a",)), Names((), ("a",))]
)
def test_outputs_that_are_none_or_twice_the_same_are_an_error(names: Names) -> None:
    """A processor makes something, and each thing once."""
    with pytest.raises(TreeError, match=r"^odd announces .*expected different names$"):
        grow("a.js", (taker("odd", ".js", lambda _path, _options: names),))


def broken(path: str, _options: Options) -> bool:
    raise KeyError(path)


@pytest.mark.parametrize("question", ["matches", "include_only", "bypass", "outputs"])
def test_a_question_that_raises_is_an_error_that_names_the_plugin(question: str) -> None:
    """A plugin's bug must not end the daemon."""
    answers: dict[str, Any] = {"matches": suffix(".js"), "outputs": same_name, question: broken}
    with pytest.raises(TreeError, match=rf"^bad: {question}\('a\.js'\) raised KeyError: 'a\.js'$"):
        grow("a.js", (Taker(Processor(name="bad", version="1", process=idle, **answers)),))


def test_an_answer_that_is_no_names_is_a_bug_of_the_plugin_too() -> None:
    """The text says what it was asked."""
    nothing: Any = lambda _path, _options: None  # noqa: E731
    with pytest.raises(TreeError, match=r"^bad: outputs\('a\.js'\) raised AttributeError"):
        grow("a.js", (taker("bad", ".js", nothing),))


def test_two_nodes_that_make_one_leaf_are_an_error_that_names_both() -> None:
    """Nobody could say whose bytes the output has."""
    split = taker("split", ".page", becomes(".a", ".b"))
    left, right = taker("left", ".a", becomes(".js")), taker("right", ".b", becomes(".js"))
    with pytest.raises(TreeError, match=r"^left and right would both make x\.js of it$"):
        grow("x.page", (split, left, right))


def test_two_branches_that_make_one_companion_are_an_error_too() -> None:
    """Only a node further down the same branch may take a companion's place."""
    split = taker("split", ".page", becomes(".a", ".b"))
    left = taker("left", ".a", becomes(".left", companions=(".map",)))
    right = taker("right", ".b", becomes(".right", companions=(".map",)))
    with pytest.raises(TreeError):
        grow("x.page", (split, left, right))


def test_the_questions_are_asked_with_the_takers_own_options() -> None:
    """Names and matches may depend on them."""

    def suffixed(path: str, options: Options) -> Names:
        return Names((path + options["end"],))

    processor = Processor(
        name="p",
        version="1",
        matches=lambda path, options: path in options["only"],
        outputs=suffixed,
        process=idle,
    )
    takers = (Taker(processor, {"only": ["a"], "end": ".x"}),)
    tree = grow("a", takers)
    assert tree is not None
    assert tree.leaves == (("a.x", 0),)
    assert grow("b", takers) is None


def test_a_processor_is_asked_only_of_names_that_end_as_it_says() -> None:
    """Most names concern few processors, and asking them is most of what a tree costs."""
    asked: list[str] = []

    def note(path: str, _options: Options) -> bool:
        asked.append(path)
        return False

    curious = taker("curious", note, include_only=note, suffixes=(".min.js", ".css"))
    for name in ("a.MIN.JS", "a.js", "x/css", "b.Css", "a.css.txt"):
        grow(name, (curious, COPY))
    assert asked == ["a.MIN.JS"] * 2 + ["b.Css"] * 2


@pytest.mark.parametrize("suffixes", [(".CSS",), (".js", "")])
def test_a_suffix_that_no_name_would_have_is_refused(suffixes: tuple[str, ...]) -> None:
    """Names are compared in lower case; an empty one would stand for all of them."""
    with pytest.raises(ValueError, match=r"bad: suffixes .*: expected lower case"):
        taker("bad", ".js", suffixes=suffixes)
