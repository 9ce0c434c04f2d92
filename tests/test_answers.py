"""Tests of answers made elsewhere: the file, its mistakes, what is written and what is shown."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import dataset
import test_finetuned as evaluation
from gemma_lora import answers, cleaning, files
from gemma_lora.figures import summarize

PETS = """CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT, age INTEGER);
INSERT INTO pets VALUES (1, 'Rex', 'dog', 3), (2, 'Tom', 'cat', NULL), (3, 'Odd', 'cat', 9);"""
CATS = {
    "id": "cats", "question": "Which are cats?", "context": PETS, "complexity": "basic",
    "gold": "SELECT name FROM pets WHERE kind = 'cat'",
    "answers": {
        "gpt": "SELECT name FROM pets WHERE kind = 'cat'", "ours": "SELECT name FROM pets",
    },
}  # fmt: skip
COUNT = {
    "id": 7, "question": "How many pets?", "context": PETS, "gold": "SELECT COUNT(*) FROM pets",
    "answers": {"ours": "I cannot say.", "gpt": "SELECT COUNT(id) FROM pets;"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are kept where no other test, and no user, finds them."""
    monkeypatch.setenv("GEMMA_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = evaluation.main(argv)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def written(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (folder / "evaluation_samples.jsonl").read_text().splitlines()
    return json.loads((folder / "evaluation.json").read_text()), [json.loads(x) for x in lines]


def test_replies_are_scored_beside_their_file(tmp_path: Path) -> None:
    path = write(tmp_path / "replies.jsonl", CATS, "", COUNT)
    done = run("--answers", path)
    assert done.returncode == 0, done.stderr
    report, samples = written(tmp_path / "replies")
    assert [sample["id"] for sample in samples] == ["cats", 7]
    matches = {n: [s["outputs"][n]["match"] for s in samples] for n in ("gpt", "ours")}
    assert matches == {"gpt": [True, True], "ours": [False, False]}
    assert samples[1]["outputs"]["ours"]["error"] == "no SQL in the reply"
    assert samples[0]["complexity"] == "basic" and samples[0]["outputs"]["ours"]["text"]
    (paired,) = report["summary"]["paired"]
    assert (paired["against"], paired["wins"], paired["losses"]) == ("ours", 2, 0)
    assert paired["sentence"].startswith("No difference between gpt and ours")
    assert report["summary"]["subject"] == "gpt" and list(report["summary"]["models"]) == [
        "gpt",
        "ours",
    ]
    assert summarize(samples) == report["summary"]
    assert report["run"]["answers_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "exec. accuracy" in done.stdout and "an answer" in done.stdout
    assert "tokens, ended by" not in done.stdout
    assert (tmp_path / "replies" / "evaluation.md").read_text().startswith("# Evaluation: 2 rows")


def test_an_answer_named_fine_tuned_is_one_among_others(tmp_path: Path) -> None:
    line = CATS | {"answers": {"theirs": "SELECT 1", "fine-tuned": CATS["gold"]}}
    assert run("--answers", write(tmp_path / "r.jsonl", line)).returncode == 0
    report, samples = written(tmp_path / "r")
    assert report["summary"]["subject"] == "theirs"
    assert summarize(samples, "theirs") == report["summary"]


def test_rows_of_a_split_are_given_by_their_id(tmp_path: Path) -> None:
    fields = {"sql_prompt": "Which are cats?", "sql": CATS["gold"], "sql_context": PETS}
    row = dataset.make_row(fields, dataset.DatasetConfig(type="sql", dataset_name="sample"))
    files.write_atomic(tmp_path / "data" / "valid.jsonl", "".join(files.json_lines([row])))
    files.write_atomic(tmp_path / "data" / "manifest.json", "{}")
    path = write(tmp_path / "r.jsonl", {"id": row["id"], "answers": {"one": CATS["gold"]}})
    flags = ["--data", tmp_path / "data", "--split", "valid", "--output-dir", tmp_path / "out"]
    done = run("--answers", path, *flags)
    assert done.returncode == 0, done.stderr
    report, (sample,) = written(tmp_path / "out")
    assert sample["id"] == row["id"] and sample["outputs"]["one"]["match"] is True
    assert report["run"]["split"] == "valid" and report["summary"]["paired"] == []
    twice = write(tmp_path / "r.jsonl", *[{"id": row["id"], "answers": {"one": "x"}}] * 2)
    done = run("--answers", twice, *flags)
    assert done.returncode == 1 and "has its answers in line 1" in done.stderr
    absent = write(tmp_path / "r.jsonl", {"id": "none", "answers": {"one": "x"}})
    done = run("--answers", absent, *flags)
    assert done.returncode == 1 and "no row of the split has the id 'none'" in done.stderr


BAD = [
    ("{", "is not JSON"),
    ("[1]", "holds list, not an object"),
    ('{"id": 1, "id": 2}', "'id' is there twice"),
    (CATS | {"question": None}, "'question' is null, not text"),
    (CATS | {"gold": " "}, "'gold' is empty, not text"),
    ({k: v for k, v in CATS.items() if k != "context"}, "'context' is missing"),
    (CATS | {"context": 3}, "'context' is int"),
    (CATS | {"complexity": ["hard"]}, "'complexity' is list"),
    (CATS | {"id": 1.5}, "'id' is float"),
    (CATS | {"id": True}, "'id' is bool"),
    ({k: v for k, v in CATS.items() if k != "answers"}, "'answers' is missing"),
    (CATS | {"answers": []}, "'answers' is list"),
    (CATS | {"answers": {}}, "'answers' is dict"),
    (CATS | {"answers": {"gpt": None, "ours": "x"}}, "the answer of 'gpt' is null"),
    (CATS | {"answers": {"gpt": "x"}}, "answers of gpt, where the first line has gpt, ours"),
    (CATS | {"answers": {"gpt": "x", "gpt\u0007": "y"}}, "two names in 'answers' are shown as"),
    (CATS | {"answers": {"\u0007": "x", "gpt": "y"}}, "a name in 'answers' is empty"),
    ({"answers": {"gpt": "x", "ours": "y"}}, "gives neither 'question'"),
    ('{"question": "a", "question": "b"}', "there twice"),
    ("[" * 100_000, ""),
]


def test_bad_lines_are_all_named_and_nothing_is_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", CATS, *(line for line, _ in BAD))
    with path.open("ab") as file:
        file.write(b'{"id": "\xff"}\n')
    done = run("--answers", path)
    assert done.returncode == 1 and done.stdout == ""
    *lines, last = done.stderr.splitlines()
    assert len(lines) == len(BAD) + 1 and "Traceback" not in done.stderr
    for number, ((_, said), line) in enumerate(zip(BAD, lines, strict=False), 2):
        assert f"r.jsonl, line {number}: " in line and said in line
    assert lines[-1].endswith("is not UTF-8")
    assert f"{len(BAD) + 1} of {len(BAD) + 2} lines" in last
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize(
    ("content", "said"), [("", "holds no line"), ("\n \n", "holds no line"), (None, "cannot read")]
)
def test_a_file_without_lines_is_one_line(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_text(content)
    done = run("--answers", path)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", answers.ADAPTER_FILES)
def test_an_adapters_folder_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "adapter.jsonl", CATS)
    files.write_atomic(tmp_path / "adapter" / name, "{}")
    for flags in ([], ["--output-dir", tmp_path / "adapter"]):
        done = run("--answers", path, *flags)
        assert done.returncode == 1 and "holds an adapter" in done.stderr
    assert [p.name for p in (tmp_path / "adapter").iterdir()] == [name]
    assert run("--answers", path, "--output-dir", tmp_path / "other").returncode == 0


def test_a_file_without_ending_gets_a_folder_of_another_name(tmp_path: Path) -> None:
    assert run("--answers", write(tmp_path / "replies", CATS)).returncode == 0
    assert (tmp_path / "replies-evaluation" / "evaluation.json").exists()


@pytest.mark.parametrize(
    "flags", [["--interactive"], ["--num-samples", "3"], ["--shots", "1"], ["--check-forgetting"]]
)
def test_flags_of_models_do_not_go_with_answers(flags: list[str]) -> None:
    done = run("--answers", "r.jsonl", *flags)
    assert done.returncode == 2 and "--answers" in done.stderr


def test_control_characters_and_markup_reach_no_reader(tmp_path: Path) -> None:
    name = "a\x1b[31m|b\u009b\u202e [/red]<b>![x](y)\n`z`"
    reply = "\x1b]0;title\x07SELECT char(27) || 'x' || char(8) AS a\r\n\r\nDone.\x00\ud800"
    line = CATS | {"id": None, "question": "Q\x1b[2J?", "answers": {name: reply, "b": "\x07"}}
    done = run("--answers", write(tmp_path / "r.jsonl", line))
    assert done.returncode == 0, done.stderr
    _, (sample,) = written(tmp_path / "r")
    assert list(sample["outputs"]) == ["a[31m|b [/red]<b>![x](y) `z`", "b"]
    first = next(iter(sample["outputs"].values()))
    assert first["text"] == "]0;titleSELECT char(27) || 'x' || char(8) AS a\n\nDone."
    page = (tmp_path / "r" / "evaluation.md").read_text()
    for text in (done.stdout, done.stderr, page):
        assert not cleaning.OBEYED.search(text)
    assert r"a\[31m\|b \[/red\]\<b\>!\[x\](y) \`z\`" in page
    assert "a[31m|b [/red]" in done.stdout


def test_answers_need_no_mlx(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", CATS, COUNT)
    code = (
        "import sys\n"
        "for name in ('mlx', 'mlx.core', 'mlx_lm', 'datasets'): sys.modules[name] = None\n"
        "import test_finetuned as t\n"
        f"if __name__ == '__main__': sys.exit(t.main(['--answers', {str(path)!r}]))\n"
    )
    script = tmp_path / "without.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "evaluation.json").exists()
