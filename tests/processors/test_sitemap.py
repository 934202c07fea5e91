"""`sitemap` makes the sitemaps of https://www.sitemaps.org/protocol.html."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetd.model import Kind
from assetd.processor import Published
from assetd.testing import Site
from assetd_processors import sitemap_xml
from assetd_processors.sitemap import sitemap
from assetd_processors.sitemap_xml import Location

if TYPE_CHECKING:
    from tests.processors.conftest import Bench

NAMESPACE = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
BASE = "https://example.org"


def pages(xml: str | bytes) -> list[dict[str, str]]:
    """The pages of a sitemap, as an XML parser sees them."""
    root = ET.fromstring(xml)
    assert root.tag == f"{NAMESPACE}urlset"
    return [{f.tag.removeprefix(NAMESPACE): f.text or "" for f in url} for url in root]


def urls(xml: str | bytes | None) -> list[str]:
    assert xml is not None
    return [page["loc"] for page in pages(xml)]


def made(bench: "Bench", text: str, **options: Any) -> list[dict[str, str]]:
    bench.write({"assets/x.sitemap": text})
    return pages(bench.make(sitemap, "x.sitemap", **options)["x.xml"])


# Locations


def test_a_location_has_the_fields_of_the_protocol(bench: "Bench") -> None:
    """As they stand, and in the order of the schema, whatever order they were given in."""
    text = """
locations:
- url: https://example.org/a?b=1&c="d"<e>
  priority: .8
  changefreq: daily
  lastmod: 2026-11-22
- {url: "https://exämple.org/ü%20?q='x'", lastmod: "2026-11-22T17:00:00+01:00", priority: 1.0}
"""
    bench.write({"assets/x.sitemap": text})
    xml = bench.make(sitemap, "x.sitemap")["x.xml"].decode()
    assert xml.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.')
    assert [list(page.items()) for page in pages(xml)] == [
        [
            ("loc", "https://example.org/a?b=1&c=%22d%22%3Ce%3E"),
            ("lastmod", "2026-11-22"),
            ("changefreq", "daily"),
            ("priority", "0.8"),
        ],
        [
            ("loc", "https://xn--exmple-cua.org/%C3%BC%20?q='x'"),
            ("lastmod", "2026-11-22T17:00:00+01:00"),
            ("priority", "1.0"),
        ],
    ]
    assert "q=&apos;x&apos;" in xml
    assert "b=1&amp;c" in xml


def test_a_path_stands_behind_the_base(bench: "Bench") -> None:
    """The option `base_url` says where the site is served."""
    text = "locations: [{url: /a b.html}, {url: /}]".replace("a b", "a%20b")
    found = made(bench, text, base_url="https://example.org/sub/")
    assert found == [{"loc": f"{BASE}/sub/a%20b.html"}, {"loc": f"{BASE}/sub/"}]


@pytest.mark.parametrize("text", ["", "locations: []", "autogen: []"])
def test_no_pages_make_an_empty_sitemap(bench: "Bench", text: str) -> None:
    """No error: the first page may be still to come."""
    assert made(bench, text) == []


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("- a", "1:1", "expected a mapping with locations or autogen"),
        ("location: []", "1:1", "unknown key 'location' (did you mean 'locations'?)"),
        ("locations: x", "1:12", "locations must be a list"),
        ("locations: [x]", "1:13", "expected a mapping with url"),
        ("locations:\n- priority: 1", "2:3", "the key url is missing"),
        ("locations:\n- url:", "2:7", "expected a value"),
        ("locations:\n- url: a.html", "2:8", "'a.html': expected a whole URL"),
        ("locations:\n- url: /a.html", "2:8", "'/a.html': a path needs a base_url"),
        ("locations:\n- url: //host/a", "2:8", "'//host/a': expected a whole URL"),
        ("locations:\n- url: ftp://a/b", "2:8", "'ftp://a/b': expected a whole URL"),
        ("locations:\n- url: https://me:pw@a/", "2:8", "'https://me:pw@a/': a URL for everybody"),
        ("locations:\n- url: https://a/b c", "2:8", "'https://a/b c': a URL holds no blanks"),
        ("locations:\n- url: https://a:b/", "2:8", "'https://a:b/': not a URL: Port"),
        (
            f"locations:\n- url: https://a/{'x' * 2048}",
            "2:8",
            f"'https://a/{'x' * 2048}': a URL must",
        ),
        (
            "locations:\n- {url: https://a/, lastmod: 22.11.2026}",
            "2:30",
            "'22.11.2026': expected a",
        ),
        (
            "locations:\n- {url: https://a/, lastmod: 2026-02-30}",
            "2:30",
            "'2026-02-30': expected a",
        ),
        (
            "locations:\n- {url: https://a/, changefreq: often}",
            "2:33",
            "'often': expected one of alw",
        ),
        ("locations:\n- {url: https://a/, priority: 1.1}", "2:31", "'1.1': expected a number from"),
        ("locations:\n- {url: https://a/, priority: high}", "2:31", "'high': expected a number"),
        (
            "locations:\n- {url: https://a/, prio: 1}",
            "2:21",
            "unknown key 'prio' (did you mean 'pri",
        ),
        ("autogen: [{files: x}]", "1:11", "the key mount is missing"),
        ("autogen: [{mount: x}]", "1:11", "the key files is missing"),
        ("autogen: [{mount: x, files: y}]", "1:11", "say where the pages are served: with base"),
        ("autogen: [{mount: x, files: y, base: z}]", "1:38", "'z': expected a whole URL"),
        (
            "autogen: [{mount: x, files: y, base: 'https://a', lastmod: now}]",
            "1:60",
            "expected source or none, found 'now'",
        ),
        (
            "autogen: [{mount: x, files: y, base: 'https://a', priority: 2}]",
            "1:61",
            "'2': expected a number",
        ),
        ("locations: [", "1:13", "bad YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    bench: "Bench", text: str, place: str, message: str
) -> None:
    """The line that people edit."""
    bench.write({"assets/x.sitemap": text})
    problem, _ = bench.refuse(sitemap, "x.sitemap")
    assert str(problem).startswith(f"assets/x.sitemap:{place}: {message}")


@pytest.mark.parametrize(
    "date", ["2026", "2026-11", "2026-11-22", "2026-11-22T17:00Z", "2026-11-22T17:00:01.5-01:00"]
)
def test_dates_are_those_of_the_w3c(date: str) -> None:
    """From a year to a fraction of a second."""
    assert sitemap_xml.checked_date(date) == date


def test_doubtful_pages_are_warned_of(bench: "Bench") -> None:
    """A page that stands there twice counts once; other hosts' pages are ignored by engines."""
    text = "locations:\n- url: https://a/\n- {url: https://a/, priority: 1}\n- url: https://b/"
    bench.write({"assets/x.sitemap": text})
    desk = bench.run(sitemap, "x.sitemap")
    assert [str(w) for w in desk.warnings] == [
        "assets/x.sitemap:3: https://a/ stands here twice",
        "assets/x.sitemap: search engines want one host to a sitemap, and this one has a, b",
    ]
    assert pages(Path(desk.staged["x.xml"]).read_text()) == [
        {"loc": "https://a/"},
        {"loc": "https://b/"},
    ]


# Splitting


LOCATIONS = st.lists(
    st.builds(
        Location,
        st.text("a&<'", min_size=1, max_size=80),
        st.none() | st.just("2026"),
        st.none(),
        st.none(),
    ),
    max_size=60,
)


@given(LOCATIONS, st.integers(1, 20), st.integers(800, 4000))
def test_every_part_is_within_the_limits(
    locations: list[Location], max_urls: int, max_bytes: int
) -> None:
    """No page is lost, none stands twice, and the order stays."""
    parts = sitemap_xml.split(locations, max_urls, max_bytes)
    found = [page["loc"] for part in parts for page in pages(part)]
    assert found == [location.url for location in locations]
    assert all(len(pages(part)) <= max_urls and len(part) <= max_bytes for part in parts)


def test_more_pages_than_fit_make_an_index(bench: "Bench") -> None:
    """The parts stand beside it, and are named where they are served."""
    text = "locations: [{url: /1}, {url: /2}, {url: /3}]"
    bench.write({"assets/a b/x.sitemap": text})
    files = bench.make(sitemap, "a b/x.sitemap", base_url=BASE, max_urls=2)
    assert list(files) == ["a b/x-1.xml", "a b/x-2.xml", "a b/x.xml"]
    assert urls(files["a b/x-1.xml"]) + urls(files["a b/x-2.xml"]) == [f"{BASE}/{n}" for n in "123"]
    index = ET.fromstring(files["a b/x.xml"])
    assert index.tag == f"{NAMESPACE}sitemapindex"
    assert [part[0].text for part in index] == [f"{BASE}/a%20b/x-{n}.xml" for n in (1, 2)]


def test_more_bytes_than_fit_make_an_index(bench: "Bench") -> None:
    """The protocol's limit is of the file as it is, uncompressed."""
    items = ", ".join(f"{{url: /{'x' * 1000}{n}}}" for n in range(20))
    bench.write({"assets/x.sitemap": f"locations: [{items}]"})
    files = bench.make(sitemap, "x.sitemap", base_url=BASE, max_bytes=10_000)
    assert list(files) == ["x-1.xml", "x-2.xml", "x-3.xml", "x.xml"]


def test_an_index_needs_to_know_where_it_is_served(bench: "Bench") -> None:
    """It holds whole URLs of its parts."""
    bench.write({"assets/x.sitemap": "locations: [{url: 'https://a/'}, {url: 'https://a/b'}]"})
    problem, _ = bench.refuse(sitemap, "x.sitemap", max_urls=1)
    assert "2 pages need an index of 2 sitemaps" in problem.message
    assert "base_url" in problem.message


# Pages that are built


RULE = "autogen:\n- {mount: assets, files: ['**/*.html'], base: 'https://example.org/s/'"


def generated(
    bench: "Bench", text: str, names: Sequence[str], **options: Any
) -> list[dict[str, str]]:
    bench.write({"assets/x.sitemap": text})
    desk = bench.desk(sitemap, "x.sitemap", **options)

    def in_place(mount: str, pattern: str, dates: bool) -> list[Published]:
        assert mount == "assets"
        ends = pattern.removeprefix("**/*")
        return [
            Published(n, bench.mount / n, 1_577_880_000 if dates else None)
            for n in names
            if n.endswith(ends)
        ]

    desk.in_place = in_place
    sitemap.process(desk)
    return pages(Path(desk.staged["x.xml"]).read_text())


NAMES = ("404.html", "a/b c.html", "a/index.html", "index.html", "x.css")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("}", ["404.html", "a/b%20c.html", "a/", ""]),
        (", exclude: 404.html}", ["a/b%20c.html", "a/", ""]),
        (", index: ''}", ["404.html", "a/b%20c.html", "a/index.html", "index.html"]),
        (", index: 404.html}", ["", "a/b%20c.html", "a/index.html", "index.html"]),
    ],
)
def test_outputs_become_pages(bench: "Bench", rule: str, expected: list[str]) -> None:
    """Sorted by name, below the base; an index is called by its folder."""
    found = generated(bench, RULE + rule, NAMES)
    assert found == [{"loc": f"{BASE}/s/{name}"} for name in expected]


def test_a_rule_gives_its_pages_fields(bench: "Bench") -> None:
    """The date is that of the source, in UTC."""
    rule = ", lastmod: source, changefreq: weekly, priority: 0.3}"
    (found,) = generated(bench, RULE + rule, ["p.html"])
    assert found == {
        "loc": f"{BASE}/s/p.html",
        "lastmod": "2020-01-01",
        "changefreq": "weekly",
        "priority": "0.3",
    }


def test_what_is_listed_goes_before_what_is_found(bench: "Bench") -> None:
    """The same page is not told twice."""
    text = f"locations: [{{url: '{BASE}/s/p.html', priority: 1}}]\n{RULE}}}"
    assert generated(bench, text, ["p.html"]) == [{"loc": f"{BASE}/s/p.html", "priority": "1"}]


def test_it_depends_on_what_is_in_place(bench: "Bench") -> None:
    """Names, and times where they are asked for."""
    bench.write({"assets/x.sitemap": RULE + ", lastmod: source, exclude: a.html}"})
    desk = bench.run(sitemap, "x.sitemap")
    assert list(desk.depended) == [
        (Kind.DATED_OUTPUTS, "assets", "**/*.html"),
        (Kind.OUTPUTS, "assets", "a.html"),
    ]


# On a real site


SITE = """
mounts: [assets, theme]
sitemap: {base_url: https://example.org}
"""
MAP = "autogen:\n- {mount: assets, files: '**/*.html'}\n- {mount: theme, files: '*.html'}\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site", SITE)
    made.write("assets/all.sitemap", MAP)
    made.write("assets/index.html", "home")
    made.write("assets/a/b.html", "b")
    made.write("theme/t.html", "t")
    return made


def test_one_build_lists_all_that_it_made(site: Site) -> None:
    """Although the sitemap may be the first that is built; and the next build does nothing."""
    for number in range(300):
        site.write(f"assets/n/{number:03}.html", "n")
    site.build()
    expected = ["a/b.html", "", *(f"n/{n:03}.html" for n in range(300)), "t.html"]
    expected = [*sorted(expected[:-1], key=lambda n: n or "index.html"), "t.html"]
    assert urls(site.output("all.xml")) == [f"{BASE}/{name}" for name in expected]
    assert site.build()["batch"]["changed"] == 0


def test_a_daemon_lists_what_comes_and_goes(site: Site) -> None:
    """When `sync` is done, so is the sitemap; an edit of a page makes it no work."""
    with site.daemon() as daemon:
        assert urls(site.output("all.xml")) == [f"{BASE}/{n}" for n in ("a/b.html", "", "t.html")]
        site.write("assets/new.html", "n")
        daemon.sync()
        assert f"{BASE}/new.html" in urls(site.output("all.xml"))
        jobs = daemon.log.count("assets/all.sitemap")
        site.write("assets/new.html", "edited")
        daemon.sync()
        assert daemon.log.count("assets/all.sitemap") == jobs
        site.remove("assets/new.html")
        site.remove("assets/a")
        daemon.sync()
        assert urls(site.output("all.xml")) == [f"{BASE}/{n}" for n in ("", "t.html")]
        site.write("assets/t.html", "ours")  # overrides the theme's: the same output, another mount
        daemon.sync()
        assert urls(site.output("all.xml")) == [f"{BASE}/{n}" for n in ("", "t.html")]
        assert site.outputs() == site.clean_build()
    site.remove("assets/index.html")
    site.build()
    assert urls(site.output("all.xml")) == [f"{BASE}/t.html"]


def test_dates_follow_the_sources(site: Site) -> None:
    """Also where only the time changes, so that a clean build gives the same bytes."""
    site.write("assets/all.sitemap", MAP.replace("'**/*.html'}", "index.html, lastmod: source}"))
    page = site.root / "assets/index.html"

    def date() -> str | None:
        return next(p.get("lastmod") for p in pages(site.output("all.xml") or ""))

    os.utime(page, (1_577_880_000, 1_577_880_000))
    with site.daemon() as daemon:
        assert date() == "2020-01-01"
        os.utime(page, (1_609_500_000, 1_609_500_000))
        daemon.sync()
        assert date() == "2021-01-01"
        site.write("assets/index.html", "edited")
        os.utime(page, (1_640_995_300, 1_640_995_300))
        daemon.sync()
        assert date() == "2022-01-01"
        assert site.outputs() == site.clean_build()


def test_an_unknown_mount_is_told_with_its_line(site: Site) -> None:
    """And heals when the configuration has it."""
    site.write("assets/all.sitemap", MAP.replace("mount: theme", "mount: themes"))
    (error,) = site.build()["errors"]
    assert (error["file"], error["line"]) == ("assets/all.sitemap", 3)
    assert error["message"] == "there is no mount 'themes' (known: assets, theme)"
    site.write("themes/z.html", "z")
    site.write("assetd.yml", SITE.replace("theme]", "theme, themes]"))
    assert site.build()["errors"] == []
    assert f"{BASE}/z.html" in urls(site.output("all.xml"))


def test_parts_that_are_not_needed_any_more_go(site: Site) -> None:
    """And come again; the sitemap's own parts do not set it off without end."""
    site.write("assets/all.sitemap", MAP.replace("*.html'", "*'"))
    site.write("assetd.yml", SITE.replace("org}", "org, max_urls: 2}"))
    site.build()
    parts = {name for name in site.outputs() if name.startswith("all-")}
    assert len(parts) > 1
    assert site.build()["batch"]["changed"] == 0
    listed = [url for part in sorted(parts) for url in urls(site.output(part))]
    assert {f"{BASE}/{name}" for name in parts} <= set(listed)
    site.write("assetd.yml", SITE)
    site.build()
    assert {n for n in site.outputs() if n.startswith("all")} == {"all.xml"}
    assert site.outputs() == site.clean_build()
