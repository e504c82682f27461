"""The report in Markdown, in LaTeX and on a terminal."""

import io
import shutil
import subprocess
from dataclasses import fields, replace

import pytest
from rich.console import Console
from toy_experiment import SYSTEMS, experiment

from retriever.bench import summary
from retriever.bench.outcome import Cost
from retriever.bench.tables import latex, markdown, terminal


def shown(**options) -> str:
    console = Console(file=io.StringIO(), **options)
    terminal(experiment(), console)
    return console.file.getvalue()


def test_markdown_has_a_section_for_each_collection():
    lines = markdown(experiment()).splitlines()
    assert lines[:3] == ["```", experiment().command, "```"]
    assert [line for line in lines if line.startswith("#")] == ["## Means over the collections", "## wings", "## heat"]


def test_markdown_marks_the_best_and_what_differs_from_the_first():
    text = markdown(experiment())
    assert "| `dense(a_b)` | **0.8244**\\* | **0.7917**\\* |" in text
    assert "| `bm25 + dense(a_b) >> rrf` | – | – | 1 of 2 |" in text


def test_markdown_says_what_is_outside_its_tolerance_and_what_was_cut():
    text = markdown(experiment())
    assert "| `dense(a_b)` | nDCG@10 | 0.8244 | 0.5000 | +0.3244 | 0.0100 | OUTSIDE | a paper, table 2 |" in text
    assert "- `bm25`: 2 texts were cut" in text
    assert "- `dense(a_b)`: 12 queries are too few to tell runs apart" in text


def test_markdown_cells_do_not_end_early():
    odd = experiment()
    named = [replace(each, system="a|b") if each.system == "bm25" else each for each in odd.outcomes]
    text = markdown(replace(odd, systems=["a|b", *SYSTEMS[1:]], outcomes=named))
    assert "| `a\\|b` | " in text


def test_latex_has_a_booktabs_table_for_each_measure():
    text = latex(experiment())
    assert text.count(r"\begin{tabular}{lrrr}") == text.count(r"\end{tabular}") == 2
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 2
    assert r"System & wings & heat & Mean \\" in text
    assert r"dense(a\_b) & \textbf{0.8244}$^*$ & \textbf{0.5456}$^*$ & \textbf{0.6850} \\" in text
    assert r"bm25 + dense(a\_b) \textgreater{}\textgreater{} rrf & 0.5456$^*$ & -- & -- \\" in text


def test_latex_leaves_no_character_with_a_meaning():
    odd = replace(experiment(), systems=["a\\b{c}_%&#$^~", *SYSTEMS[1:]])
    assert r"a\textbackslash{}b\{c\}\_\%\&\#\$\textasciicircum{}\textasciitilde{} & -- & -- & --" in latex(odd)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex (texlive-latex-base, -latex-recommended)")
def test_latex_compiles_with_booktabs_alone(tmp_path):
    odd = ["".join(map(chr, range(32, 127))) + " ä é –", "[0.5]", "*"]
    made = latex(replace(experiment(), systems=[*SYSTEMS, *odd]))
    preamble = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "report.tex").write_text(preamble + made + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert said.returncode == 0, said.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "report.log").read_text(errors="replace")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


def test_a_pipe_gets_tabs():
    lines = shown().splitlines()
    assert lines[0] == "wings: 1,000 documents, 12 judged queries"
    assert lines[1] == "run\tnDCG@10\tRR@10"
    assert lines[3] == "dense(a_b)\t0.8244*\t0.7917*"


def test_a_narrow_terminal_breaks_no_number():
    text = shown(width=40, force_terminal=True, color_system=None)
    for number in ("0.8244*", "50,000", "1,846", "22.7", "OUTSIDE"):
        assert number in text


def test_every_measured_cost_is_shown():
    named = {column.field for column in summary.COSTS} | {"device", "precision"}
    assert named == {each.name for each in fields(Cost)}
