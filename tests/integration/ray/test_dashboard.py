"""What people see of a run on Ray while it goes on: the page of the dashboard in a real browser, and the series in a
real Prometheus, asked with the queries of the Grafana dashboard.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import free_port
from tests.slurm_cluster import wait_for

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROMETHEUS = shutil.which("prometheus")
GRAFANA = ROOT / "tools" / "grafana"
ABSENT_HERE = {"Teacher", "GPU memory", "GPUs of nodes"}  # a run without a teacher, on nodes without GPUs
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.sampled(seconds=75)]

CLUSTER = """\
launcher: ray
name: page
store: {folder}/store
stop_lead_s: 10
ray: {{cpus_per_node: 2, gpus_per_node: 0, mem_gb: 6, temp_dir: {folder}}}
stages:
  default: {{mem_gb: 2, time: 1h}}
"""
EXPERIMENT = """\
name: live
defaults: {train: {model: SiT-Mu/2, global_batch: 16, precision: fp32, steps: 100000, milestones: [100000]}}
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images, steps: 6, batch: 8}
  latents: {kind: latents, images: images, autoencoder: vae}
  run: {kind: train, latents: latents}
"""


class Live:
    """An experiment that goes on until the test ends, on a Ray cluster of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "STX_SLOTS": str(folder / "slots")}
        (folder / "cluster.yaml").write_text(CLUSTER.format(folder=folder))
        (folder / "live.yaml").write_text(EXPERIMENT)
        with (folder / "out").open("w") as out:
            argv = self.argv("submit", "live.yaml", "--foreground")
            self.submit = subprocess.Popen(argv, cwd=folder, env=self.env, stdout=out, stderr=subprocess.STDOUT)

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "stx.cli", *words, "--cluster", "cluster.yaml"]

    def told(self) -> dict:
        argv = self.argv("dashboard", "--json")
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def trains(self) -> bool:
        assert self.submit.poll() is None, self.words()
        return any(self.folder.glob("store/stages/train-*/attempts/001/metrics.jsonl"))

    def words(self) -> str:
        logs = [self.folder / "out", *self.folder.glob("store/ray/page@*/*/*.log")]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in logs)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    folder = Path(tempfile.mkdtemp(prefix="srd", dir="/tmp"))
    made = Live(folder)
    wait_for(made.trains, limit=240, seen=made.words)
    yield made
    made.submit.send_signal(signal.SIGINT)
    try:
        assert made.submit.wait(120) == 130, made.words()
        wait_for(lambda: not any((folder / f"stx-ray-{os.geteuid()}").iterdir()), limit=60, seen=made.words)
    finally:
        made.submit.kill()
        made.submit.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_the_page_shows_the_actors_by_name_to_those_who_have_the_token(live):
    from playwright.sync_api import sync_playwright

    told = live.told()
    assert told["here"] and told["tunnel"] is None
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{told['url']}/logical/actors", timeout=10)
    secret = Path(told["token"]).read_text()
    asked = urllib.request.Request(f"{told['url']}/api/jobs/", headers={"Authorization": f"Bearer {secret}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        jobs = json.load(answer)
    assert {"experiment": "live", "store": f"{live.folder}/store"} in [job["metadata"] for job in jobs]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = running.new_context(viewport={"width": 1500, "height": 800}).new_page()
        page.goto(f"{told['url']}/#/actors")
        field = page.get_by_placeholder("Enter your authentication token")
        field.fill(secret)
        field.press("Enter")
        page.get_by_text(re.compile("live/run rank 0")).first.wait_for(timeout=60_000)
        if kept := os.environ.get("STX_SCREENSHOT"):
            page.screenshot(path=kept)
        running.close()


@contextlib.contextmanager
def prometheus(live: Live) -> Iterator[str]:
    """A real Prometheus with our configuration, but for where the store is, and how often it looks; its URL."""
    if PROMETHEUS is None and not os.environ.get("STX_CI"):
        pytest.skip("no prometheus on the path")
    text = (GRAFANA / "prometheus.yml").read_text()
    file, port = live.folder / "prometheus.yml", free_port()
    file.write_text(text.replace("/stx-ray/", f"{live.folder}/store/ray/").replace(": 10s", ": 2s"))
    argv = [
        f"--config.file={file}",
        f"--storage.tsdb.path={live.folder}/series",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (live.folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([str(PROMETHEUS), *argv], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: ready(url), limit=60, seen=(live.folder / "prometheus.log").read_text)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def ready(url: str) -> bool:
    """Whether a Prometheus has started; before, it answers 503, or not at all."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(url: str, query: str) -> list[dict]:
    """What a Prometheus answers now."""
    asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        pytest.fail(f"{query}: {error.read().decode()}")


def test_prometheus_finds_the_nodes_and_answers_the_queries_of_the_grafana_dashboard(live):
    panels = json.loads((GRAFANA / "dashboards" / "stx.json").read_text())["panels"]
    queries = {panel["title"]: target["expr"] for panel in panels for target in panel["targets"]}
    assert len(queries) == 12
    chosen = {"$experiment": "live", "$stage": "run", "$cluster": "page"}
    with prometheus(live) as url:
        for title, query in queries.items():
            for name, value in chosen.items():
                query = query.replace(name, value)
            if title in ABSENT_HERE:
                assert ask(url, query) == []
            else:
                wait_for(lambda query=query: bool(ask(url, query)), limit=60, seen=lambda query=query: query)
        (loss,) = ask(url, 'ray_stx_loss{experiment="live"}')
        assert {"stage": "run", "kind": "train", "attempt": "001", "cluster": "page"}.items() <= loss["metric"].items()
        assert 0 < float(loss["value"][1]) < 10
        if (kept := os.environ.get("STX_SCREENSHOT_SERIES")) and CHROMIUM is not None:
            keep_page(f"{url}/graph?g0.expr=ray_stx_images&g0.tab=0&g0.range_input=2m", Path(kept))


def keep_page(url: str, path: Path) -> None:
    """A picture of a page, as a person sees it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = running.new_context(viewport={"width": 1500, "height": 800}).new_page()
        page.goto(url)
        page.wait_for_timeout(5000)
        page.screenshot(path=path)
        running.close()
