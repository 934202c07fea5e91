"""Sitemaps as XML, by https://www.sitemaps.org/protocol.html.  Pure: texts in, texts out."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

MAX_URLS: Final = 50_000
MAX_BYTES: Final = 52_428_800
FREQUENCIES: Final = ("always", "hourly", "daily", "weekly", "monthly", "yearly", "never")

_NAMESPACE: Final = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_URL_LIMIT: Final = 2048
_LEGAL: Final = "%/:?#[]@!$&'()*+,;=~"
_DATE: Final = re.compile(
    r"\d{4}(?:-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?)?)?"
)
_PRIORITY: Final = re.compile(r"0(?:\.\d+)?|1(?:\.0+)?|\.\d+")


class Location(NamedTuple):
    """A page, its fields checked."""

    url: str
    lastmod: str | None = None
    changefreq: str | None = None
    priority: str | None = None


def checked_url(text: str, base: str | None = None) -> str:
    """An absolute URL, with everything but ASCII percent-encoded.

    Args:
        text: What was given.
        base: What a path that starts with `/` stands behind.

    Raises:
        ValueError: It is none; the text says why.
    """
    if text.startswith("/") and not text.startswith("//"):
        if base is None:
            raise ValueError("a path needs a base_url: set `sitemap: {base_url: https://...}`")
        text = base.rstrip("/") + text
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("a URL holds no blanks and no control characters")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        # A host goes by its own alphabet, a path by percents.
        host = host if host.isascii() else host.encode("idna").decode()
        port = "" if parts.port is None else f":{parts.port}"
    except (ValueError, UnicodeError) as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("expected a whole URL, as in https://example.org/page")
    if "@" in parts.netloc:
        raise ValueError("a URL for everybody holds no user and no password")
    host = f"[{host}]" if ":" in host else host
    rest = text.partition("://")[2][len(parts.netloc) :]
    url = f"{parts.scheme}://{host}{port}{quote(rest or '/', safe=_LEGAL)}"
    if len(url) >= _URL_LIMIT:
        raise ValueError(f"a URL must be shorter than {_URL_LIMIT} characters")
    return url


def checked_date(text: str) -> str:
    """A date as the W3C has it.

    Raises:
        ValueError: It is none.
    """
    fits = _DATE.fullmatch(text) is not None
    try:
        if fits:
            whole = {4: f"{text}-01-01", 7: f"{text}-01"}.get(len(text), text)
            datetime.fromisoformat(re.sub(r"\.\d+", "", whole))
            return text
    except ValueError:
        pass
    raise ValueError("expected a date, as in 2026-11-22 or 2026-11-22T17:00:00+01:00")


def checked_frequency(text: str) -> str:
    """One of the words that there are.

    Raises:
        ValueError: It is none of them.
    """
    if text not in FREQUENCIES:
        raise ValueError(f"expected one of {', '.join(FREQUENCIES)}")
    return text


def checked_priority(text: str) -> str:
    """A number from 0.0 to 1.0.

    Raises:
        ValueError: It is none.
    """
    if _PRIORITY.fullmatch(text) is None:
        raise ValueError("expected a number from 0.0 to 1.0")
    return f"0{text}" if text.startswith(".") else text


def split(
    locations: Iterable[Location], max_urls: int = MAX_URLS, max_bytes: int = MAX_BYTES
) -> list[str]:
    """The sitemaps that hold *locations*, each within the limits; one if there are none."""
    head, tail = f"{_HEAD}<urlset {_NAMESPACE}>\n", "</urlset>\n"
    made: list[str] = []
    texts: list[str] = []
    room = max_bytes - len(head) - len(tail)
    left = room
    for location in locations:
        text = _url(location)
        # All ASCII: a character is a byte.
        if texts and (len(texts) == max_urls or len(text) > left):
            made.append(head + "".join(texts) + tail)
            texts, left = [], room
        texts.append(text)
        left -= len(text)
    made.append(head + "".join(texts) + tail)
    return made


def index(urls: Sequence[str]) -> str:
    """The index of sitemaps that stand at *urls*."""
    parts = "".join(f"  <sitemap>\n    <loc>{_escaped(url)}</loc>\n  </sitemap>\n" for url in urls)
    return f"{_HEAD}<sitemapindex {_NAMESPACE}>\n{parts}</sitemapindex>\n"


def _url(location: Location) -> str:
    return f"  <url>\n{''.join(_fields(location))}  </url>\n"


def _fields(location: Location) -> Iterator[str]:
    # In the order of the protocol's schema, which asks for it.
    names = ("loc", "lastmod", "changefreq", "priority")
    for name, value in zip(names, location, strict=True):
        if value is not None:
            yield f"    <{name}>{_escaped(value)}</{name}>\n"


def _escaped(text: str) -> str:
    # Not `xml.sax.saxutils`: it imports the whole of http and ssl, for each worker to hold.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("'", "&apos;").replace('"', "&quot;")
