"""What is written for people who contribute, report, cite and release: it names things that exist, and runs."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / ".github/pull_request_template.md"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def steps(workflow):
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


def script(workflow, name):
    (found,) = (step["run"] for step in steps(workflow) if step.get("name") == name)
    return found


def bash(code, cwd, **variables):
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=cwd, env=os.environ | variables, capture_output=True, text=True
    )


@pytest.mark.parametrize("path", [*WORKFLOWS, *FORMS, *PAGES], ids=lambda path: path.name)
def test_make_targets_and_linked_files_exist(path):
    text = path.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # A command stands at the start of a line, after `run:` or in backquotes.
    named = set(re.findall(r"(?:^\s*|run: |`)make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets
    assert all((path.parent / link).exists() for link in re.findall(r"\]\(([^)#:]+)\)", text))
    assert all((ROOT / name).exists() for name in re.findall(r"[A-Z_]{4,}\.md", text))


def test_contributing_names_its_targets():
    """Lest the test above looks for nothing."""
    assert len(re.findall(r"^make \S+", PAGES[0].read_text(), re.MULTILINE)) == 5


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_write_nothing_by_default_and_put_no_input_into_a_shell(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    assert all("${{" not in step.get("run", "") for step in steps(path))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    assert all(item["type"] == "textarea" and item["id"] and item["attributes"]["label"] for item in form["body"])


def test_citation_has_the_fields_of_its_format_and_our_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    needed = {"cff-version", "message", "title", "authors", "version", "license", "abstract", "keywords", "references"}
    assert needed <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == VERSION
    works = [citation, *citation["references"]]
    assert all(author.get("name") or author.get("family-names") for work in works for author in work["authors"])
    assert all(work["type"] and work["title"] for work in works)


@pytest.mark.parametrize(("tag", "passes"), [(f"v{VERSION}", True), (f"v{VERSION}0", False), (VERSION[:-1], False)])
def test_a_release_needs_the_tag_of_the_version(tag, passes):
    check = script(ROOT / ".github/workflows/release.yml", "the tag is the version")
    assert (bash(check, ROOT, GITHUB_REF_NAME=tag).returncode == 0) == passes


@pytest.mark.slow
def test_the_hub_workflow_shows_a_model_and_a_space_without_sending(tmp_path):
    (tmp_path / "hub_configs").symlink_to(ROOT / "hub_configs")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/dkd").symlink_to(Path(sys.executable).parent / "dkd")
    show = script(ROOT / ".github/workflows/hub.yml", "the model with the card of its repository")
    done = bash(show, tmp_path, MODEL="somebody/dkd-tiny")
    assert done.returncode == 0, done.stderr
    assert "dry run, nothing was sent" in done.stdout
    assert '"somebody/dkd-tiny"' in done.stdout
    assert "space-to-publish/app.py" in done.stdout
