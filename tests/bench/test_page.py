"""The page as text: what stands in it, and that nothing of a query or a document can leave its place."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from toy_experiment import HOSTILE, MEASURES, QUERIES, SYSTEMS, experiment

from retriever.bench import plots
from retriever.bench.outcome import Experiment
from retriever.bench.page import html

VOID = {"meta", "link", "br", "img", "input"}
ADDRESSES = {"src", "href", "action", "data", "srcset", "poster", "xlink:href"}


class Page(HTMLParser):
    """Elements as (tag, attributes), the text in each table's rows, every script's text; refuses what does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._open and self._open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data
        self.text += data


@pytest.fixture(scope="module")
def text() -> str:
    return html(experiment())


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_the_page_names_no_place_outside_itself(page, text):
    addresses = [value for _, attributes in page.elements for name, value in attributes.items() if name in ADDRESSES]
    assert addresses
    assert all(re.match(r"#[a-z0-9-]+$|data:,$", address) for address in addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_links_within_the_page_lead_somewhere(page):
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {value[1:] for _, attributes in page.elements if (value := attributes.get("href", "")).startswith("#")}
    assert {"overview", "collection-1", "collection-2", "differences"} <= links <= places


def test_hostile_texts_stay_text(page):
    assert page.text.count(HOSTILE) > 1  # a query's and a document's, unescaped by the parser
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_hostile_names_stay_text_too():
    bad = experiment()
    made = [replace(each, system=HOSTILE if each.system == SYSTEMS[0] else each.system) for each in bad.outcomes]
    collections = [replace(bad.collections[0], name=HOSTILE), bad.collections[1]]
    made = [replace(each, collection=HOSTILE) if each.collection == "wings" else each for each in made]
    systems = [HOSTILE, *SYSTEMS[1:]]
    page = Page(html(replace(bad, systems=systems, collections=collections, outcomes=made, command=HOSTILE)))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert [HOSTILE in line for line in page.tables[0]] == [False, True, False, False]


def test_the_data_in_the_page_are_the_values_per_query(page):
    data = json.loads(page.scripts[0])
    assert data["measures"] == MEASURES
    wings, heat = data["collections"]
    assert (wings["name"], heat["name"]) == ("wings", "heat")
    assert wings["queries"][0] == ["q0", HOSTILE]
    assert wings["systems"] == SYSTEMS
    assert heat["systems"] == SYSTEMS[:2]
    known = experiment().of("wings")[2].results.per_query["RR@10"]
    assert wings["values"][2][1] == pytest.approx(list(known.values()), abs=1e-6)
    assert len(known) == QUERIES


def test_the_page_is_the_same_when_made_from_the_kept_json(text):
    assert html(Experiment.from_json(experiment().to_json())) == text


def test_values_carry_their_marks(page):
    overview, wings = page.tables[:2]
    assert overview == [
        ["#", "system", *MEASURES, "collections"],
        ["1", SYSTEMS[0], "0.4410", "0.2847", "2 of 2"],
        ["2", SYSTEMS[1], "0.6850", "0.6042", "2 of 2"],
        ["3", SYSTEMS[2], "–", "–", "1 of 2"],
    ]
    assert wings[2][1:3] == [SYSTEMS[1], "0.8244*"]


def test_every_difference_to_the_first_system_has_its_interval_and_what_the_queries_can_show(page):
    against = next(table for table in page.tables if "p corrected" in table[0])
    assert [line[:3] for line in against[1:3]] == [
        [SYSTEMS[1], "nDCG@10", "+0.3834"],
        [SYSTEMS[1], "RR@10", "+0.5069"],
    ]
    low, high = map(float, against[1][3:5])
    assert 0 < low < 0.3834 < high
    assert "dense(a_b): 12 queries are too few to tell runs apart" in page.text


def test_numbers_outside_their_tolerance_are_marked_in_words(page):
    (published,) = (table for table in page.tables if "verdict" in table[0])
    assert [line[-2] for line in published[1:]] == ["within", "✗ outside", "✗ outside"]
    assert published[2][:4] == [SYSTEMS[1], "nDCG@10", "0.8244", "0.5000"]


def test_costs_leave_out_what_was_not_measured(page):
    wings, heat = (table for table in page.tables if "p50, ms" in table[0])
    assert wings[1][:2] == [SYSTEMS[0], "1,000"]
    assert wings[2][-2:] == ["22.7", "cpu, float32"]
    assert set(heat[1][1:]) == {"–"}  # a run file


def test_the_hardest_queries_come_first(text):
    asked = re.findall(r"<summary>(q\d+)", text)
    assert asked[:4] == ["q0", "q3", "q7", "q11"]  # nobody finds q0's document, everybody the others' a rank later


def test_of_a_hard_query_each_document_has_its_grade_its_rank_in_each_system_and_its_text(page):
    nobody, q3 = [table for table in page.tables if table[0][0] == "document"][:2]
    assert nobody[0] == ["document", "grade", "rank in 1", "rank in 2", "rank in 3", "text"]
    assert nobody[1] == ["x1", "0", "1", "1", "1", ""]
    assert nobody[-1] == ["d0", "✓ 2", "–", "–", "–", f"Text with {HOSTILE}"]  # relevant, and found by none
    assert ["d3", "✓ 2", "4", "2", "3", "Document 3 of wings."] in q3
    assert ["x2", "not judged", "2", "3", "2", ""] in q3


def test_nothing_is_plotted_for_costs_that_nobody_has():
    bare = experiment()
    costless = [replace(each, cost=type(each.cost)()) for each in bare.outcomes]
    assert "<svg" not in html(replace(bare, outcomes=costless))


def test_a_collection_on_which_nothing_ran_is_said_to_be_so():
    whole = experiment()
    page = html(replace(whole, outcomes=[each for each in whole.outcomes if each.collection == "wings"]))
    assert "No system ran on it." in page


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.61, 0.69], [0.6, 0.62, 0.64, 0.66, 0.68, 0.7]),
        ([0.5], [0.5, 0.6]),
        ([0.0, 0.0], [0.0, 0.2]),
        ([0.1, 0.9], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(values, expected):
    assert plots.ticks(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], [2, 5]),
        ([1.0, 1.0], [1, 2]),
        ([0.4, 9.0], [0.2, 0.5, 1, 2, 5, 10]),
        ([0.5, 2000.0], [0.1, 1, 10, 100, 1000, 10_000]),
    ],
)
def test_logarithmic_ticks_enclose_the_values(values, expected):
    assert plots.log_ticks(values) == pytest.approx(expected)


def test_numbers_of_points_in_one_place_do_not_cover_each_other():
    places = plots.labels([(200.0, 150.0)] * 8)
    for n, (x, y) in enumerate(places):
        for other_x, other_y in places[:n]:
            assert abs(x - other_x) >= 2 * plots.LABEL - 2 or abs(y - other_y) >= 2 * plots.LABEL - 2


def test_more_effective_is_higher_and_dearer_is_further_right():
    points = [plots.Point(n, f"s{n}", 10.0**n, n / 10) for n in range(1, 5)]
    drawn = [each for each in plots.scatter(points, "ms", "nDCG").iter("circle")]
    assert all(float(one.get("cx")) < float(next_.get("cx")) for one, next_ in pairwise(drawn))
    assert all(float(one.get("cy")) > float(next_.get("cy")) for one, next_ in pairwise(drawn))
