"""The examples of the guide are built on a real site, as they stand in it."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from assetd.testing import Site
from assetd_processors import tools

GUIDE: Final = Path(__file__).resolve().parents[1] / "docs" / "writing-a-processor.md"
FILE: Final = re.compile(
    r"^Put this into `([\w./]+)`[^\n]*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
YAML: Final = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(site: Site, name: str) -> None:
    """Put the files of one example into the site, with the configuration that the guide shows."""
    text = GUIDE.read_text()
    files = {path: content for path, content in FILE.findall(text) if Path(path).stem == name}
    assert f"tools/{name}.py" in files
    for path, content in files.items():
        site.write(path, content)
    (given,) = (c for c in YAML.findall(text) if name in yaml.safe_load(c))
    site.write("assetd.yml", f"mounts: [assets]\n{given}")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_every_file_of_the_guide_belongs_to_an_example() -> None:
    """A block that is not run may be wrong."""
    text = GUIDE.read_text()
    blocks = re.findall(r"^```(?:python|js)$", text, re.MULTILINE)
    assert len(blocks) == len(FILE.findall(text)) == 3


def test_the_banner_stands_on_top_of_every_script(site: Site) -> None:
    """With the text of the options, also on what another processor made."""
    example(site, "banner")
    site.write("assets/js/a.js", "a()")
    site.write("assets/js/b.js.concat", "files: [a.js]")
    assert site.build()["errors"] == []
    expected = "/* Lantern Bay, all rights adrift */\na()"
    assert [site.output(f"js/{name}.js") for name in "ab"] == [expected] * 2
    config = (site.root / "assetd.yml").read_text()
    site.write("assetd.yml", config.replace("Lantern Bay, all rights adrift", "'*/'"))
    errors = site.build()["errors"]
    assert {error["message"] for error in errors} == {"the banner would end its own comment"}
    assert {error["file"] for error in errors} == {"assetd.yml"}
    assert site.output("js/a.js") == expected


def test_the_example_on_the_tool_server_works(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warm, with its options, the place of errors, and an edited module taken at once."""
    with capsys.disabled():
        import io

        tools.install(io.StringIO())
    example(site, "rem")
    site.write("assets/a.css", "a { margin: 25px 1.5px; b: -4px }\n")
    site.write("assets/b.scss", "a { b: 10px }")
    with site.daemon() as daemon:
        assert daemon.status()["errors"] == []
        assert site.output("a.css") == "a { margin: 2.5rem 0.15rem; b: -0.4rem }\n"
        assert site.output("b.css") == "a {\n  b: 1rem; }\n"
        site.write("assets/a.css", "a {\n  b: 1px\n")
        (error,) = daemon.sync()
        assert (error["file"], error["line"], error["column"]) == ("assets/a.css", 1, 1)
        assert error["message"] == "Unclosed block"
        assert site.output("a.css") == "a { margin: 2.5rem 0.15rem; b: -0.4rem }\n"
        site.write("assets/a.css", "a { b: 1px }\n")
        assert daemon.sync() == []
        assert site.output("a.css") == "a { b: 0.1rem }\n"
        module = (site.root / "tools/rem.cjs").read_text()
        site.write("tools/rem.cjs", module.replace("}rem`", "}em`"))
        assert daemon.sync() == []
        assert site.output("a.css") == "a { b: 0.1em }\n"
        assert site.outputs() == site.clean_build()
