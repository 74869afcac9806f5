"""What people see of a run on Ray while it goes on: the page of the dashboard in a real browser, and the series that
Prometheus would fetch.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import wait_for

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.sampled(seconds=90)]

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

    def series(self) -> str:
        """What the nodes export now."""
        (targets,) = json.loads((self.folder / "store/ray/page/targets.json").read_text())
        texts = [urllib.request.urlopen(f"http://{one}/metrics", timeout=10).read() for one in targets["targets"]]
        return b"".join(texts).decode()

    def words(self) -> str:
        logs = [self.folder / "out", *self.folder.glob("store/ray/page/*/*.log")]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in logs)


@pytest.fixture
def live() -> Iterator[Live]:
    folder = Path(tempfile.mkdtemp(prefix="srd", dir="/tmp"))
    made = Live(folder)
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
def test_the_page_shows_the_actors_by_name_to_those_who_have_the_token_and_metrics_have_their_labels(live):
    from playwright.sync_api import sync_playwright

    wait_for(live.trains, limit=240, seen=live.words)
    told = live.told()
    assert told["here"] and told["tunnel"] is None
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{told['url']}/logical/actors", timeout=10)
    pattern = r'ray_stx_loss\{[^}]*experiment="live"[^}]*stage="run"'
    wait_for(lambda: re.search(pattern, live.series()) is not None, limit=60, seen=live.series)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = running.new_context(viewport={"width": 1500, "height": 800}).new_page()
        page.goto(f"{told['url']}/#/actors")
        field = page.get_by_placeholder("Enter your authentication token")
        field.fill(Path(told["token"]).read_text())
        field.press("Enter")
        page.get_by_text(re.compile("live/run rank 0")).first.wait_for(timeout=60_000)
        if kept := os.environ.get("STX_SCREENSHOT"):
            page.screenshot(path=kept)
        running.close()
