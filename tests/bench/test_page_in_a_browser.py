"""The page in a real browser: headless Chromium opens it, a driver in the page clicks, and what became of it is read.

The driver is a second script that a test puts into the page, with its hash in the page's security policy. It clicks as
a user would, and writes what it saw as JSON into an element of its own, which `--dump-dom` prints.
"""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toy_experiment import SYSTEMS, experiment

from retriever.bench.page import html as made_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

LISTEN = "const problems = []; addEventListener('error', (event) => problems.push(event.message));"

DRIVE = """
const seen = {problems};
const column = (table, n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
const click = (table, n) => {
  const heading = table.tHead.rows[0].cells[n];
  heading.querySelector("button").click();
  return [heading.getAttribute("aria-sort"), column(table, n)];
};
const choose = (name, value) => {
  const select = document.getElementById("chosen").elements[name];
  select.value = value;
  select.dispatchEvent(new Event("change", {bubbles: true}));
};
const wait = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const tables = [...document.querySelectorAll("main table")];
const titled = (heading) => tables.filter((table) => table.tHead.textContent.includes(heading));
(async () => {
  %s
  seen.title = document.title;
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  const out = document.createElement("output");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
})();
"""

CONTRAST = """
const rgba = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return {r, g, b, a}; };
const light = ({r, g, b}) => {
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = rgba(getComputedStyle(each).backgroundColor);
    if (colour.a === 1) return colour;
  }
};
for (const each of document.querySelectorAll("details")) each.open = true;
await wait();
seen.paper = light(rgba(getComputedStyle(document.body).backgroundColor));
seen.texts = 0;
seen.faint = [];
for (const each of document.querySelectorAll("body *")) {
  const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !each.checkVisibility() || ["SCRIPT", "OPTION"].includes(each.tagName)) continue;
  const style = getComputedStyle(each);
  const [one, two] = [light(rgba(each.namespaceURI.endsWith("svg") ? style.fill : style.color)), light(behind(each))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  seen.texts += 1;
  if (ratio < 4.5) seen.faint.push([each.tagName, each.textContent.slice(0, 20), ratio]);
}
seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
"""


def driven(folder: Path, steps: str, *options: str) -> dict:
    """What the driver saw after its steps."""
    page, drive = made_page(experiment()), DRIVE % steps
    for script in (LISTEN, drive):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    page = page.replace("<style>", f"<script>{LISTEN}</script><style>", 1)
    page = page.replace("</body>", f"<script>{drive}</script></body>", 1)
    dom = chromium(folder, page, "--virtual-time-budget=5000", "--dump-dom", *options)
    (seen,) = re.findall(r'<output id="seen">(.*?)</output>', dom, re.DOTALL)
    found = json.loads(html.unescape(seen))
    assert found["problems"] == []
    assert found["loaded"] == []
    assert found["title"] == "3 systems on 2 collections"  # what the hostile texts would change
    return found


def chromium(folder: Path, page: str, *options: str) -> str:
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
    ]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox for root
    command += [f"--user-data-dir={folder / 'profile'}", *options, (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=folder).stdout


def test_tables_sort_when_their_headings_are_clicked(tmp_path):
    seen = driven(
        tmp_path,
        """
        const [overview] = titled("collections"), [costs] = titled("p50, ms");
        seen.value = click(overview, 2); seen.again = click(overview, 2); seen.name = click(overview, 1);
        seen.others = overview.tHead.rows[0].cells[2].getAttribute("aria-sort");
        seen.latency = click(costs, 5); seen.speed = click(costs, 1); seen.parameters = click(costs, 10);
        """,
    )
    assert seen["value"] == ["descending", ["0.6850", "0.4410", "–"]]  # the best first, what is missing last
    assert seen["again"] == ["ascending", ["0.4410", "0.6850", "–"]]
    assert seen["name"] == ["ascending", [SYSTEMS[0], SYSTEMS[2], SYSTEMS[1]]]
    assert seen["others"] == "none"
    assert seen["latency"] == ["ascending", ["0.50", "6.00", "7.00"]]  # less is better
    assert seen["speed"] == ["descending", ["1,000", "90", "82"]]  # by number, not by digits
    assert seen["parameters"] == ["ascending", ["22.7", "22.7", "–"]]


def test_differences_follow_what_is_chosen(tmp_path):
    seen = driven(
        tmp_path,
        """
        const counts = () => document.getElementById("counts").textContent;
        const bars = () => ["gain", "loss"].map((kind) =>
          (document.querySelector(`#bars .${kind}`).getAttribute("d").match(/M/g) ?? []).length);
        seen.first = [counts(), bars()];
        choose("before", "bm25 + dense(a_b) >> rrf"); seen.turned = [counts(), bars()];
        choose("after", "bm25"); seen.worse = [counts(), bars()];
        seen.tables = [...document.querySelectorAll("#extremes table")].map((table) =>
          [table.caption.textContent, column(table, 0)[0], click(table, 1)[1][0]]);
        choose("collection", "heat"); choose("measure", "RR@10");
        seen.other = [counts(), [...document.getElementById("chosen").elements.before.options].map((one) => one.value)];
        """,
    )
    wings = "nDCG@10 on wings: better on {} of 12 queries, worse on {}, equal on 1; mean difference {}."
    assert seen["first"] == [wings.format(11, 0, "+0.3834"), [11, 0]]
    assert seen["turned"] == [wings.format(11, 0, "+0.2788"), [11, 0]]
    assert seen["worse"] == [wings.format(0, 11, "−0.1046"), [0, 11]]
    assert seen["tables"] == [["Largest losses", "q1: query 1 about wings", "−0.1309"]]
    assert seen["other"][0].startswith("RR@10 on heat: ")
    assert seen["other"][1] == SYSTEMS[:2]  # the fusion did not run there


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_every_text_is_readable_and_the_page_never_wider_than_the_window(tmp_path, width, scheme, dark):
    options = (f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},900")
    seen = driven(tmp_path, CONTRAST, *options)
    assert (seen["paper"] < 0.1) == dark
    assert seen["texts"] > 100
    assert seen["faint"] == []  # WCAG 2.2, 1.4.3: contrast of at least 4.5
    assert seen["overflow"] == 0


def test_a_script_that_is_not_the_pages_own_does_not_run(tmp_path):
    page = made_page(experiment()).replace("</body>", "<script>document.title = 'taken'</script></body>")
    assert "<title>3 systems on 2 collections</title>" in chromium(tmp_path, page, "--dump-dom")


def test_everything_is_unfolded_for_printing(tmp_path):
    seen = driven(
        tmp_path,
        """
        const open = () => [...document.querySelectorAll("details")].map((each) => each.open);
        seen.before = open(); dispatchEvent(new Event("beforeprint")); seen.after = open();
        """,
    )
    assert not any(seen["before"])
    assert len(seen["after"]) > 20
    assert all(seen["after"])
