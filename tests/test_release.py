"""Files that repeat a statement agree: on the version of a release, and on the oldest and newest versions supported."""

import re
from pathlib import Path

import pytest

import torch_mmd_losses

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads pyproject.toml")
    return tomllib.loads(text_of("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def pythons(project):
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name) for name in project["classifiers"]]
    return [found[1] for found in named if found]


def test_the_version_and_the_year_are_the_same_everywhere():
    citation = text_of("CITATION.cff")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == torch_mmd_losses.__version__
    entry = re.search(r"^@software{.*?^}$", text_of("docs/index.md"), re.DOTALL | re.MULTILINE)[0]
    assert re.search(r"version = {(.+)}", entry)[1] == torch_mmd_losses.__version__
    assert re.search(r"year    = {(.+)}", entry)[1] == re.search(r"^date-released: (\d+)-", citation, re.MULTILINE)[1]


def test_the_classifiers_name_each_python_from_the_oldest(project, pythons):
    minors = [int(python.removeprefix("3.")) for python in pythons]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert project["requires-python"] == f">={pythons[0]}"


@pytest.mark.repository
def test_the_oldest_and_the_newest_versions_are_tested(project, pythons):
    lowest = {name: version for name, _, version in (entry.partition(">=") for entry in project["dependencies"])}
    workflow = text_of(".github/workflows/ci.yml")
    tested = dict(re.findall(r'\{ python: "(.+?)", torch: "(.+?)" \}', workflow))
    assert tested == {
        pythons[0]: f"torch=={lowest['torch']}.0 numpy=={lowest['numpy']}.0",
        pythons[-1]: "torch",
    }
    torch, numpy = lowest["torch"], lowest["numpy"]
    installation = text_of("docs/install.md")
    assert f"needs Python {pythons[0]}, PyTorch {torch} and NumPy {numpy}, or newer" in installation
    assert f"| {pythons[0]}, the oldest | {torch}.0, the oldest, with NumPy {numpy}.0 |" in installation
    assert f"| {pythons[-1]}, the newest | the newest release |" in installation


@pytest.mark.repository
@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_the_wheel_is_installed_on_the_oldest_and_the_newest_python(name, pythons):
    before, install_test, _ = (WORKFLOWS / name).read_text(encoding="utf-8").partition("install-test\n")
    assert install_test
    offered = re.findall(r"python-version: \|\n((?: +3\.\d+\n)+)", before)
    assert set(offered[-1].split()) > {pythons[0], pythons[-1]}


@pytest.mark.repository
def test_actions_are_named_by_commit_and_keep_no_credentials():
    for path in WORKFLOWS.glob("*.yml"):
        workflow = path.read_text(encoding="utf-8")
        for action in re.findall(r"uses: (.+)", workflow):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), path
        checkouts = re.findall(r"uses: actions/checkout@.*\n(.*\n.*\n)", workflow)
        assert checkouts
        assert set(checkouts) == {"        with:\n          persist-credentials: false\n"}
