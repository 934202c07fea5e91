"""What is counted is what happened, and Prometheus takes it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from assetd.metrics import Counts, Histogram, StoreSize
from assetd.model import Batch
from assetd.testing import Daemon, Site, wait_for

DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", "mounts: [assets]\nworkers: 1\n")
    site.write("assets/site.scss", "a { b: c }\n")
    site.write("assets/robots.txt", "User-agent: *\n")
    return site


def families(site: Site) -> dict[str, Metric]:
    """What `assetd metrics` prints, read as Prometheus reads it."""
    done = site.run("metrics", check=True)
    assert done.stderr == ""
    return {family.name: family for family in text_string_to_metric_families(done.stdout)}


def value(site: Site, name: str, **labels: str) -> float | None:
    """One sample; None if there is none."""
    for family in families(site).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def names() -> set[str]:
    """The metrics that the document has."""
    return set(re.findall(r"^\| `(assetd_\w+)` \|", DOCUMENT.read_text(), re.MULTILINE))


def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    """Names, types and texts keep to Prometheus's conventions, whatever a mount is called."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there: on Debian, apt-get install prometheus brings it")
    (tmp_path / "site").mkdir()
    mount = 'o"d\\d é\n'
    site = Site(tmp_path / "site", 'mounts: [\'assets\', "o\\"d\\\\d é\\n"]\nworkers: 1\n')
    site.write(f"{mount}/a.txt", "a")
    site.write("assets/a.scss", "a {")
    site.write("assets/b.scss", "a { b: c }")
    with site.daemon():
        text = site.run("metrics", check=True).stdout
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert 'mount="o\\"d\\\\d é\\\\n"' in text


def test_every_metric_is_documented(site: Site) -> None:
    """The table has what there is, and nothing else."""
    with site.daemon():
        found = families(site).values()
    told = {f.name + ("_total" if f.type == "counter" else "") for f in found}
    assert told == names()


def test_without_a_daemon_there_are_no_metrics(site: Site) -> None:
    """Numbers of yesterday would pass for those of now."""
    done = site.run("metrics")
    assert (done.returncode, done.stdout) == (3, "")
    assert "`assetd start`" in done.stderr


def test_jobs_and_saves_are_counted_one_by_one(site: Site) -> None:
    """Over many batches: whoever draws a rate of it must not see a jump."""
    with site.daemon() as daemon:
        built = value(site, "assetd_jobs_total", processor="sass", outcome="built")
        assert built == 1
        assert value(site, "assetd_save_latency_seconds_count") == 0
        for number in range(20):
            site.write("assets/site.scss", f"a {{ b: c{number} }}\n")
            assert daemon.sync() == []
        site.write("assets/site.scss", "a {\n")
        assert len(daemon.sync()) == 1
        site.remove("assets/robots.txt")
        daemon.sync()
        counted = families(site)
        status = daemon.status()

    def samples(family: str, suffix: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value
            for sample in counted[family].samples
            if sample.name == family + suffix
        }

    jobs = {
        (sample.labels["processor"], sample.labels["outcome"]): sample.value
        for sample in counted["assetd_jobs"].samples
    }
    assert jobs == {("sass", "built"): 21, ("sass", "failed"): 1, ("copy", "built"): 22}
    assert samples("assetd_processor_seconds", "_count") == {("sass",): 22, ("copy",): 22}
    saves = status["latency_ms"]["samples"]
    assert samples("assetd_save_latency_seconds", "_count") == {(): saves}
    buckets = [
        sample.value
        for sample in counted["assetd_save_latency_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == saves
    assert samples("assetd_batches", "_total") == {("start",): 1, ("watch",): 22}
    assert samples("assetd_outputs_published", "_total") == {(): 22}
    assert samples("assetd_outputs_deleted", "_total") == {(): 1}
    assert samples("assetd_sources_failing", "") == {(): 1}
    assert samples("assetd_sources", "") == {("assets", "ok"): 0, ("assets", "failed"): 1}


def test_what_came_from_the_store_or_was_clean_took_no_time(site: Site) -> None:
    """The histogram is of runs; a hit in the store would make a processor look fast."""
    first = "a { b: c }\n"
    with site.daemon() as daemon:
        site.write("assets/site.scss", "a { b: d }\n")
        daemon.sync()
        site.write("assets/site.scss", first)
        daemon.sync()
        assert value(site, "assetd_jobs_total", processor="sass", outcome="cached") == 1
        assert value(site, "assetd_processor_seconds_count", processor="sass") == 2


def test_a_refused_configuration_shows(site: Site) -> None:
    """And a taken one counts a generation, without setting the counters back."""
    with site.daemon() as daemon:
        site.write("assetd.yml", "mounts: [assets]\nworkres: 1\n")
        wait_for(lambda: value(site, "assetd_config_refused") == 1, "the refusal")
        site.write("assetd.yml", "mounts: [assets]\nworkers: 1\njob_timeout: 1m\n")
        wait_for(lambda: value(site, "assetd_config_generation") == 2, "the new generation")
        daemon.sync()
        assert value(site, "assetd_config_refused") == 0
        assert value(site, "assetd_jobs_total", processor="sass", outcome="built") == 1


def test_the_daemon_pays_for_the_library_only_when_asked() -> None:
    """It takes memory, and many daemons are never asked."""
    script = "import assetd.serve, sys; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_large_store_is_measured_piece_by_piece(tmp_path: Path) -> None:
    """No question takes long, and the answer is right or is not given."""
    for number in range(300):
        folder = tmp_path / ("objects", "results")[number % 2] / f"{number % 40:02x}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"x" * number)
    size = StoreSize()
    assert size.measure(str(tmp_path), 0.0) is None
    wait_for(lambda: size.measure(str(tmp_path), 0.0005) is not None)
    expected = sum(range(300))
    assert size.measure(str(tmp_path)) == expected
    (tmp_path / "objects" / "00" / "0").unlink()
    (tmp_path / "objects" / "00" / "new").write_bytes(b"y" * 1000)
    (tmp_path / "results" / "new").mkdir()
    (tmp_path / "results" / "new" / "new").write_bytes(b"z")
    assert size.measure(str(tmp_path)) == expected + 1001
    shutil.rmtree(tmp_path / "objects")
    shutil.rmtree(tmp_path / "results")
    assert size.measure(str(tmp_path)) == 0


def test_a_histogram_counts_what_is_at_its_bounds() -> None:
    """`le` means less or equal."""
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.add(number)
    assert histogram.buckets() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert histogram.sum == 8.0


def test_counting_a_batch_needs_no_engine() -> None:
    """The counters are plain numbers, fed by whoever hears of a batch."""
    counts = Counts()
    for number in range(3):
        counts.hear(Batch(number, "watch", 0.0))
    assert counts.batches == {"watch": 3}


def test_a_daemon_that_is_asked_again_and_again_keeps_its_memory(site: Site) -> None:
    """Somebody asks every few seconds, for weeks."""

    def memory(daemon: Daemon) -> int:
        fields = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()
        return int(fields[1]) * 4096

    with site.daemon() as daemon:
        for _ in range(20):
            daemon.ask("metrics")
        before = memory(daemon)
        for _ in range(300):
            daemon.ask("metrics")
        assert memory(daemon) - before < 2 << 20
