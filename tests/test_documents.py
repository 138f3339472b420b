"""Pages say what is there: links, names, and figures that are those of the JSON files they come from."""

import importlib
import json
import re
from pathlib import Path
from statistics import fmean

import pytest
import yaml

import modeling_dkd
from benchmarks import ablation_page, growth_report
from benchmarks.pretraining_chain import table as chain_table
from benchmarks.table import table as benchmarks_page
from faults.report import PAGE, Tally, runs
from faults.report import table as faults_table


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# Pages with figures that no JSON file has: each says itself when and on what it was measured, once.
MEASURED_ONCE = {
    "cost.md": "rounded from the rows of benchmarks.md, see test_documented_costs.py",
    "profiles.md": "what was tried to make it faster: a log of experiments that the code does not hold any more",
    "encoders.md": "tolerances and versions, which tests hold",
    "python.md": "versions and thresholds in examples",
    "recognise.md": "defaults of options; a table rounded from benchmarks.md",
    "quickstart.md": "a version of Python",
    "domains.md": "sizes and thresholds in examples",
    "own_method.md": "numbers in examples",
    "harnesses.md": "versions",
    "export.md": "versions and tolerances, which tests hold",
    "faults.md": "the table is tested below; versions",
    "training.md": "its table of test clips is tested below; choices on validation groups are a log of experiments",
    "growth.md": "tested below as a whole",
    "ablation.md": "its tables are tested below",
    "background_bias.md": "tested in test_benchmark_background_bias.py",
    "benchmarks.md": "tested below as a whole",
    "results.md": "made from its JSON files, see test_benchmark_results_page.py",
    "evaluate.md": "its table is tested below",
    "reproduce.md": "computed and measured by benchmarks of their own, with tests of their own",
    "protocols.md": "its table is tested below",
    "method.md": "its tables are tested below",
}


def lines_of(name, kind="summary"):
    return json.loads((DOCS / name).read_text())[kind]


def gains(name, method, protocol=None, of_clips=False):
    """Gain of each row; of real clips those that are one particle each."""
    return [
        line["gain"]
        for line in lines_of(name)
        if line["method"] == method
        and protocol in (None, line["protocol"])
        and not (of_clips and line["data"].endswith("by quarters"))
    ]


def points(*values, digits=1):
    return [f"{100 * value:+.{digits}f}" for value in values]


def anchors(text):
    """Of the headings, as GitHub and the site make them."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_files_of_the_repository_that_are_named_exist(page):
    folders = "tests|modeling_dkd|benchmarks|hub_configs|faults|notebooks|docs"
    named = set(re.findall(rf"(?<![\w/.-])(?:{folders})/[\w/-]+(?:\.\w+)+", page.read_text()))
    of_others = {"tests/test_modeling_common.py", "tests/test_processing_common.py", "docs/MODEL_ZOO.md"}
    assert not [name for name in named - of_others if not (ROOT / name).exists() and "NAME" not in name]


def test_the_index_and_the_site_have_every_page_and_the_index_every_file():
    index = (DOCS / "README.md").read_text()
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"]({page.name})" in index
        assert re.search(rf"[:-] {page.name}$", nav, re.MULTILINE)
    for file in [*DOCS.glob("*.json"), *DOCS.glob("pictures/*")]:
        assert file.relative_to(DOCS).as_posix() in index


def test_pictures_are_light():
    sizes = [path.stat().st_size for path in (DOCS / "pictures").iterdir()]
    assert sum(sizes) < 1_500_000


def test_the_page_of_the_api_names_what_can_be_imported():
    text = (DOCS / "api.md").read_text()
    documented = re.findall(r"<!-- api: (\S+) -->", text)
    for name in documented:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__
    shown = {name.rpartition(".")[2] for name in documented}
    lacking = set(modeling_dkd.__all__) - shown
    assert lacking == {"DKDCLIPImageProcessor", "DKDCLIPOutput"}  # parts of processor and model
    assert all(f"`{name}`" in text for name in shown & set(modeling_dkd.__all__))


def test_the_site_is_built_strictly_from_the_pages():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["strict"] is True
    assert site["docs_dir"] == "docs"
    assert all((ROOT / hook).is_file() for hook in site["hooks"])


def test_the_comment_in_the_page_of_the_api_becomes_a_docstring():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.on_page_markdown("a\n<!-- api: x.y -->\n<!-- other -->") == "a\n::: x.y\n<!-- other -->"


def test_every_page_with_figures_says_where_they_are_from():
    """A new page with decimal figures needs a test of them, or a reason why there is none."""
    with_figures = {page.name for page in PAGES if re.search(r"\d\.\d", page.read_text())}
    assert with_figures == MEASURED_ONCE.keys() & with_figures


def test_the_page_of_growth_is_what_its_curves_give():
    found = json.loads((DOCS / "growth.json").read_text())
    assert (DOCS / "growth.md").read_text() == growth_report.markdown(found)


def test_the_page_of_the_ablation_has_its_rows():
    text = (DOCS / "ablation.md").read_text()
    for name, section in lines_of("ablation.json", "sections").items():
        lower_is_better = ablation_page.SECTIONS[name].figure == "ece_change"
        rows = ablation_page.rows_of(section.get("changes") or section["gains"])
        assert ablation_page.table(rows, lower_is_better) in text
        assert section["environment"]["commit"][:7] in text


def test_the_page_of_the_benchmarks_is_what_its_rows_give():
    found = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert (DOCS / "benchmarks.md").read_text() == benchmarks_page(found)


def test_the_page_of_faults_has_its_rows():
    tallies = [Tally(**row) for row in lines_of("faults.json", "faults")]
    text = (DOCS / "faults.md").read_text()
    assert faults_table(tallies) in text
    assert PAGE.split("{table}")[0] in text
    tried, lost = sum(tally.tried for tally in tallies), sum(tally.lost for tally in tallies)
    assert f"{tried:,} trials, {lost or 'nothing'} lost" in (DOCS / "cost.md").read_text()
    assert all(tally.run.split(",")[0] in runs(tallies) for tally in tallies)


def test_the_table_of_peers_has_the_development_rows():
    names = {
        "both centred": "both_centred",
        "TransCLIP": "transclip",
        "StatA": "stata",
        "OGA": "oga",
        "DOTA": "dota",
        "ADAPT": "adapt",
        "label bias of Frolic": "frolic_bias",
        "the paper read word for word": "paper_literal",
        "mixture posterior with text prior": "gmm",
        "mean shift": "mean_shift",
        "**DKD**": "dkd",
    }
    rows = re.findall(r"^\| ([^|]+) \| ([+-][^\n]+) \|$", (DOCS / "evaluate.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(names)
    for name, cells in rows:
        method = names[name]
        own = [line for line in lines_of("development_rows.json") if line["method"] == method]
        of_protocols = [fmean(gains("development_rows.json", method, protocol)) for protocol in PROTOCOLS]
        all_rows = gains("development_rows.json", method)
        assert cells.split(" | ") == [
            *points(*of_protocols),
            *points(fmean(all_rows), digits=2),
            *points(min(all_rows), fmean(line["ece_change"] for line in own)),
            *points(max(line["worst_ece_change"] for line in own)),
        ]


PROTOCOLS = ("full", "induct", "quarter", "few", "imbal")


def test_the_page_of_protocols_has_the_gains_of_each():
    text = (DOCS / "protocols.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([+-][^\n]+) \|$", text, re.MULTILINE)
    assert {name for name, _ in rows} == set(PROTOCOLS)
    for name, cells in rows:
        clip = gains("development_rows.json", "dkd", name)
        real = gains("real_video_rows.json", "dkd", name, of_clips=True)
        assert cells.split(" | ") == points(fmean(clip), min(clip), fmean(real), min(real))
    assert len(clip) == 5
    assert len(real) == 4


def test_pages_say_how_many_seeds_the_rows_have():
    for name in ("development_rows.json", "real_video_rows.json", "search_open_rows.json"):
        seeds = {line["num_seeds"] for line in lines_of(name) if line["protocol"] != "full"}
        assert seeds == {5}
    for page in (ROOT / "README.md", DOCS / "evaluate.md", DOCS / "protocols.md", DOCS / "method.md"):
        assert re.search(r"five\s+seeds|5 seeds|seeds 0 to 4", page.read_text())


def test_the_page_of_the_method_has_the_measured_rows():
    text = (DOCS / "method.md").read_text()
    clip, real = gains("development_rows.json", "dkd"), gains("real_video_rows.json", "dkd", of_clips=True)
    changes = json.loads((DOCS / "ablation.json").read_text())["sections"]["trust"]["changes"][
        "text_trusts (0.1,) -> ()"
    ]
    full = [value for by_set in changes.values() for value in by_set.values()]
    assert len(full) == len(real) == 20
    # No set of CLIP is trusted less.
    for row, values in (("real clips, 20 rows", (full, real)), ("development sets (CLIP), 25 rows", (clip, clip))):
        (said,) = re.findall(rf"^\| {re.escape(row)}[^|]*\| (\S+) / (\S+) \| (\S+) / (\S+) \|$", text, re.MULTILINE)
        measured = [round(100 * v, 1) for gained in values for v in (fmean(gained), min(gained))]
        assert [float(value) for value in said] == measured
    for classes in (14, 101):
        (said,) = re.findall(
            rf"^\| [^|]*UCF101, {classes} classes asked[^|]*plain ([\d.]+)[^|]*\| (\S+) \| (\S+) \|$",
            text,
            re.MULTILINE,
        )
        plain, own = (
            line
            for line in lines_of("real_video_rows.json")
            if line["data"] == f"UCF101 14 of {classes} classes asked"
            and line["protocol"] == "full"
            and line["method"] in ("zero-shot", "dkd")
        )
        under_full = changes["full"][f"UCF101, {'own' if classes == 14 else 'all'} classes"]
        assert list(said) == [f"{100 * plain['top1']:.1f}", *points(under_full, own["gain"])]


def test_the_page_of_the_method_has_search_and_known():
    text = (DOCS / "method.md").read_text()
    for words, texts in (("texts that were fitted", "fitted"), ("texts that were not", "new")):
        (said,) = re.findall(rf"^\| {words}[^|]*\| (\S+) \| (\S+) \|$", text, re.MULTILINE)
        rows = [row for row in lines_of("search_open_rows.json", "search") if row["texts"] == texts]
        of = {m: {row["data"]["name"]: row["map"] for row in rows if row["method"] == m} for m in ("zero-shot", "dkd")}
        changes = [of["dkd"][name] - plain for name, plain in of["zero-shot"].items()]
        assert list(said) == points(fmean(changes), min(changes))
        assert len(changes) == 7
    lines = lines_of("search_open_rows.json")
    plain, own = ([line for line in lines if line["method"] == method] for method in ("zero-shot", "dkd"))
    above = [o["auroc"] - max(p["auroc"], p["auroc_cosine"]) for o, p in zip(own, plain, strict=True)]
    measured = [fmean(above), min(above), fmean(o["known_ece"] for o in own), max(o["known_ece"] for o in own)]
    measured.append(fmean(p["known_ece"] for p in plain))
    said = re.search(
        r"curve (\S+) points above .*? on average, (\S+) on the worst set; calibration error of `known` (\S+) on "
        r"average and (\S+) on\s+the worst set, that of plain CLIP's largest softmax, as a probability to be known, "
        r"(\S+)\.",
        text,
        re.DOTALL,
    )
    assert list(said.groups()) == [f"{100 * value:.1f}" for value in measured]


def test_the_page_of_training_has_the_runs_on_real_clips():
    methods = {
        "linear probe on the random start weights": "linear probe",
        "transformers.Trainer: mean of frames, linear classifier": "transformers.Trainer",
        "train.py, without the domain": "train.py: fine-tuned",
        "train.py, with the domain": "train.py: fine-tuned/dkd",
        "halfway back to the start weights, without the domain": "train.py: interpolated-0.5",
        "halfway back to the start weights, with the domain": "train.py: interpolated-0.5/dkd",
    }
    top1 = {(row["run"], row["method"]): row["top1"] for row in lines_of("real_clips.json", "rows")}
    text = (DOCS / "training.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (\d+\.\d) \| (\d+\.\d) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(methods)
    for name, *values in rows:
        assert values == [f"{100 * top1[run, methods[name]]:.1f}" for run in (0, 1)]


def test_the_page_of_reproducing_has_the_chain_in_small():
    contents = json.loads((DOCS / "pretraining_chain.json").read_text())
    text = (DOCS / "reproduce.md").read_text()
    assert chain_table(contents["compared"]) in text
    assert {row["n"] for row in contents["rows"] if row["run"] != "pre-training"} == {237}
    assert "N = 237" in text
    tuned = [row["top1"] for row in contents["rows"] if (row["run"], row["method"]) == ("pre-training", "fine-tuned")]
    assert f"learns {100 * min(tuned):.0f} to {100 * max(tuned):.0f} % of its own" in " ".join(text.split())
