r"""The processor `sitemap`: a YAML list of pages as a sitemap for search engines.

`sitemap.sitemap` makes `sitemap.xml`::

    locations:
      - url: https://example.org/      # or /, behind the option `base_url`
        lastmod: 2026-11-22
        changefreq: daily
        priority: 0.8
    autogen:                           # pages that are built, by their outputs
      - mount: assets
        files: ["**/*.html"]
        exclude: [404.html]
        base: https://example.org/     # else the option `base_url`
        index: index.html              # is called by its folder; "" for none
        lastmod: source                # the day on which the source was last modified; or none
        changefreq: weekly
        priority: 0.5

More pages than a sitemap may hold make `sitemap-1.xml`, `sitemap-2.xml` and so on, and
`sitemap.xml` becomes their index.  So it names its outputs only by making them.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from assetd.processor import (
    BuildError,
    Names,
    Option,
    Options,
    Processor,
    Step,
    suffix,
)
from assetd_processors import recipes, sitemap_xml
from assetd_processors.sitemap_xml import MAX_BYTES, MAX_URLS, Location

if TYPE_CHECKING:
    import yaml

_SUFFIX: Final = ".sitemap"
_KEYS: Final = ("locations", "autogen")
_FIELDS: Final[Mapping[str, Callable[[str], str]]] = {
    "lastmod": sitemap_xml.checked_date,
    "changefreq": sitemap_xml.checked_frequency,
    "priority": sitemap_xml.checked_priority,
}
_RULE_KEYS: Final = (
    *("mount", "files", "exclude", "base", "index"),
    *("lastmod", "changefreq", "priority"),
)
_DATES: Final = ("source", "none")


def _outputs(path: str, _options: Options) -> Names:
    return Names((_target(path),))


def _target(path: str) -> str:
    return path[: -len(_SUFFIX)] + ".xml"


def _sitemap(step: Step) -> None:
    options = step.options
    root = recipes.compose(step)
    values: dict[str, yaml.Node] = {}
    if root is not None:
        values = recipes.mapping(step, root, _KEYS, f"a mapping with {' or '.join(_KEYS)}")
    found: dict[str, Location] = {}
    if (node := values.get("locations")) is not None:
        for item in recipes.sequence(step, node, "locations must be a list"):
            location = _location(step, item)
            if location.url in found:
                line = item.start_mark.line + 1
                step.warn(f"{location.url} stands here twice", file=step.origin, line=line)
            found.setdefault(location.url, location)
    if (node := values.get("autogen")) is not None:
        for item in recipes.sequence(step, node, "autogen must be a list"):
            for location in _generated(step, item):
                found.setdefault(location.url, location)
    hosts = sorted({url.split("/", 3)[2] for url in found})
    if len(hosts) > 1:
        step.warn(f"search engines want one host to a sitemap, and this one has {', '.join(hosts)}")

    parts = sitemap_xml.split(found.values(), options["max_urls"], options["max_bytes"])
    target = _target(step.path)
    if len(parts) == 1:
        step.write(target, parts[0])
        return
    if len(parts) > MAX_URLS:
        raise step.fail(f"an index holds no more than {MAX_URLS} sitemaps; this needs {len(parts)}")
    names = [f"{target[:-4]}-{number}.xml" for number in range(1, len(parts) + 1)]
    try:
        urls = [sitemap_xml.checked_url("/" + quote(name), _base(step)) for name in names]
    except ValueError as error:
        told = f"{len(found)} pages need an index of {len(parts)} sitemaps, and that their URLs"
        raise step.fail(f"{told}: {error}") from error
    for name, part in zip(names, parts, strict=True):
        step.write(name, part)
    step.write(target, sitemap_xml.index(urls))


def _base(step: Step) -> str | None:
    return step.options["base_url"] or None


def _location(step: Step, item: "yaml.Node") -> Location:
    values = recipes.mapping(step, item, ("url", *_FIELDS), "a mapping with url")
    if "url" not in values:
        raise recipes.wrong(step, item, "the key url is missing")
    url = _checked(step, values["url"], lambda text: sitemap_xml.checked_url(text, _base(step)))
    return Location(url, **_fields(step, values))


def _fields(step: Step, values: Mapping[str, "yaml.Node"]) -> dict[str, str]:
    return {
        name: _checked(step, values[name], check)
        for name, check in _FIELDS.items()
        if name in values
    }


def _checked(step: Step, node: "yaml.Node", check: Callable[[str], str]) -> str:
    text = recipes.scalar(step, node, "expected a value")
    try:
        return check(text)
    except ValueError as error:
        raise recipes.wrong(step, node, f"{text!r}: {error}") from error


def _generated(step: Step, item: "yaml.Node") -> Iterator[Location]:
    """The locations of one rule of `autogen`, sorted by the outputs' names."""
    values = dict(recipes.mapping(step, item, _RULE_KEYS, "a mapping with mount and files"))
    for key in ("mount", "files"):
        if key not in values:
            raise recipes.wrong(step, item, f"the key {key} is missing")
    mount = recipes.scalar(step, values["mount"], "expected the name of a mount")
    files = _patterns(step, values["files"])
    exclude = _patterns(step, values["exclude"]) if "exclude" in values else []
    base = _rule_base(step, item, values.get("base"))
    index = getattr(values.get("index"), "value", "index.html")
    dated = False
    if (node := values.pop("lastmod", None)) is not None:
        dated = recipes.scalar(step, node, "expected source or none") == "source"
        if not dated and node.value not in _DATES:
            raise recipes.wrong(step, node, f"expected source or none, found {node.value!r}")
    fields = _fields(step, values)
    try:
        chosen = {
            output.name: output
            for pattern in files
            for output in step.published(mount, pattern, dates=dated)
        }
        for pattern in exclude:
            for output in step.published(mount, pattern):
                chosen.pop(output.name, None)
    except BuildError as error:
        raise recipes.wrong(step, values["mount"], error.message) from error
    for name, output in sorted(chosen.items()):
        folder, slash, last = name.rpartition("/")
        path = f"{folder}{slash}" if last == index else name
        url = sitemap_xml.checked_url("/" + quote(path.encode("utf-8", "surrogateescape")), base)
        if output.modified is not None:
            fields["lastmod"] = datetime.fromtimestamp(output.modified, UTC).date().isoformat()
        yield Location(url, **fields)


def _patterns(step: Step, node: "yaml.Node") -> list[str]:
    import yaml

    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [recipes.scalar(step, each, "expected a pattern") for each in nodes]


def _rule_base(step: Step, item: "yaml.Node", node: "yaml.Node | None") -> str:
    if node is not None:
        return _checked(step, node, sitemap_xml.checked_url)
    base = _base(step)
    if base is None:
        told = "say where the pages are served: with base, or `sitemap: {base_url: https://...}`"
        raise recipes.wrong(step, item, told)
    return base


sitemap = Processor(
    name="sitemap",
    version="1",
    matches=suffix(_SUFFIX),
    suffixes=(_SUFFIX,),
    outputs=_outputs,
    process=_sitemap,
    bypass=True,
    cheap=True,
    options=(
        Option("base_url", str, "", "Where the output folder is served: https://example.org/"),
        Option(
            "max_urls",
            int,
            MAX_URLS,
            "Pages beyond which it is split; the protocol allows 50,000.",
            minimum=1,
            maximum=MAX_URLS,
        ),
        Option(
            "max_bytes",
            int,
            MAX_BYTES,
            "Bytes beyond which it is split; the protocol allows 50 MB.",
            minimum=10_000,
            maximum=MAX_BYTES,
        ),
    ),
)
