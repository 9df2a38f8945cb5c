"""scripts/setup_env.sh with a stand-in for Python and pip: how it goes wrong, resumes, and does nothing twice."""

import shutil
import subprocess

import pytest
from conftest import ROOT

TOOLS = "basename bash cat cksum cp date dirname flock grep ls mkdir printf rm sed sh tail".split()
# What the recipe asks of a Python, answered at once and written down; FAKE_* say how it shall go wrong.
PYTHON = r"""#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
    *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
    *ensurepip*) exit ${FAKE_NO_VENV:-0} ;;
    "-m venv"*)
        mkdir -p "$4/bin"; : >"$4/pyvenv.cfg"; cp "$0" "$4/bin/python"
        { echo "#!/bin/sh"; echo "FAKE_VERSION=${FAKE_VERSION:-3.11} MADE_IN='$4'"; cat "$0"; } >"$4/bin/python"
        cp "$4/bin/python" "$4/bin/pip" ;;
    --version) echo "pip 23.2.1 from $MADE_IN/lib/pip (python $FAKE_VERSION)" ;;
    "-m pip show"*) exit ${FAKE_NO_FAIRSEQ:-0} ;;
    "-m pip install"*"$FAKE_FAILS_AT"*) [ -z "$FAKE_FAILS_AT" ] || { echo "$FAKE_SAYS"; exit 1; } ;;
    *"import fairseq"*) [ -z "$FAKE_BROKEN" ] || { echo "ImportError: $FAKE_BROKEN"; exit 1; } ;;
esac
"""


class SetUp:
    """A copy of the recipe in a project of its own, on a PATH that has only the tools it needs."""

    def __init__(self, folder):
        self.project = folder / "a project"
        self.venv = self.project / ".venv"
        self.calls = folder / "calls"
        self.tools = folder / "tools"
        for file in ["scripts/setup_env.sh", "scripts/common.sh", "setup.py", "pyproject.toml"]:
            (self.project / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.project / file)
        self.tools.mkdir()
        for name in TOOLS:
            if shutil.which(name):
                (self.tools / name).symlink_to(shutil.which(name))
        self.tool("python3", PYTHON)
        self.tool("c++", "#!/bin/sh\n")

    def tool(self, name, text):
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def run(self, *arguments, **environment):
        self.calls.write_text("")
        return subprocess.run(
            [shutil.which("bash"), self.project / "scripts/setup_env.sh", *arguments],
            env={"PATH": str(self.tools), "CALLS": str(self.calls), **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def fails(self, *words, **environment):
        """It ends with one sentence that has ``words``, and leaves no environment that passes for finished."""
        ended = self.run(**environment)
        said = [line for line in ended.stderr.splitlines() if not line.startswith("[")]  # [12:00:00] tells a step
        assert ended.returncode == 1 and len(said) == 1 and not ended.stdout, ended
        assert said[0].startswith("setup_env.sh: error: ") and all(word in said[0] for word in words), said
        assert not (self.venv / "gift_fairseq.stamp").exists()

    def made(self):
        """Whether the last run made the environment anew."""
        return "-m venv --clear" in self.calls.read_text()

    def installs(self):
        return [line for line in self.calls.read_text().splitlines() if line.startswith("-m pip install")]

    def finishes(self, **environment):
        ended = self.run(**environment)
        assert ended.returncode == 0 and (self.venv / "gift_fairseq.stamp").exists(), ended
        return len(self.installs())


@pytest.fixture
def set_up(tmp_path):
    return SetUp(tmp_path)


def test_help_and_arguments(set_up):
    ended = set_up.run("--help")
    assert ended.returncode == 0 and "TORCH_SPEC" in ended.stdout and not set_up.venv.exists()
    ended = set_up.run("--cuda")
    assert ended.returncode == 1 and "--cuda" in ended.stderr and not set_up.venv.exists()


def test_second_run_does_nothing_until_something_changes(set_up):
    other = {"TORCH_SPEC": "torch==2.12.0"}
    assert set_up.finishes() == 3 and set_up.made()
    assert set_up.finishes() == 0
    assert set_up.finishes(**other) == 3 and not set_up.made()
    (set_up.project / "setup.py").write_text("# changed")
    assert set_up.finishes(**other) == 3 and not set_up.made()
    assert set_up.finishes(**other, FAKE_VERSION="3.12") == 3 and set_up.made()
    assert set_up.finishes(**other, FAKE_VERSION="3.12") == 0


@pytest.mark.parametrize(
    "version, arguments",
    [("3.10", "--no-input fairseq==0.12.2"), ("3.11", "--no-input --no-build-isolation fairseq-fixed==0.12.3.1")],
)
def test_fairseq_by_python(set_up, version, arguments):
    set_up.finishes(FAKE_VERSION=version)
    assert set_up.installs()[1].endswith(arguments)


@pytest.mark.parametrize("version", ["2.7", "3.8", "3.14"])
def test_python_that_fairseq_cannot_be_imported_by(set_up, version):
    set_up.fails(f"Python {version}", "3.9 to 3.13", FAKE_VERSION=version)
    assert not set_up.venv.exists()


def test_no_python(set_up):
    set_up.fails("nowhere", "install Python", PYTHON="nowhere")
    set_up.tool("broken", "#!/bin/sh\nexit 3\n")
    set_up.fails("broken", "does not run", PYTHON="broken")


def test_no_venv_module(set_up):
    set_up.fails("venv and ensurepip", FAKE_NO_VENV="1")
    set_up.finishes()


def test_no_compiler(set_up):
    (set_up.tools / "c++").unlink()
    set_up.fails("no C++ compiler", "install g++", FAKE_NO_FAIRSEQ="1")
    assert not set_up.installs()  # said before the downloads
    set_up.finishes()  # fairseq is there: none needed


@pytest.mark.parametrize("step", ["torch==", "fairseq-fixed==", "--editable"])
def test_pip_fails(set_up, step):
    said = "Traceback\nERROR: it is full\nmore"
    set_up.fails("it is full", "gift_fairseq.pip.log", FAKE_FAILS_AT=step, FAKE_SAYS=said)
    assert (set_up.venv / "gift_fairseq.pip.log").read_text() == said + "\n"
    assert set_up.finishes() == 3


def test_no_network(set_up):
    said = "WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: No matching distribution found for torch"
    set_up.fails("cannot be reached", "check the network", FAKE_FAILS_AT="torch", FAKE_SAYS=said)
    set_up.fails("TORCH_SPEC", "Python 3.11", FAKE_FAILS_AT="torch", FAKE_SAYS=said.splitlines()[1])


def test_broken_result(set_up):
    set_up.fails("cannot be imported", "no such thing", "remove", FAKE_BROKEN="no such thing")


def test_half_made_or_moved_environment_is_made_anew(set_up):
    set_up.finishes()
    (set_up.venv / "bin/python").unlink()  # as when the Python under it is gone
    (set_up.venv / "bin/pip").unlink()
    assert set_up.finishes() == 3 and set_up.made()
    (set_up.venv / "bin/pip").unlink()  # as when making it was interrupted
    (set_up.venv / "gift_fairseq.stamp").unlink()
    assert set_up.finishes() == 3 and set_up.made()
    set_up.project = set_up.project.rename(set_up.project.with_name("moved"))
    set_up.venv = set_up.project / ".venv"
    assert set_up.finishes() == 3 and set_up.made()


def test_folder_of_something_else_is_left_alone(set_up, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    set_up.fails("GIFT_VENV", "no Python environment", GIFT_VENV=str(tmp_path / "mine"))
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    set_up.fails("GIFT_VENV", "cannot be made", GIFT_VENV=str(tmp_path / "mine/thesis.tex/.venv"))


def test_two_at_once(set_up):
    """The second waits for the first, and then has nothing to do."""
    both = [
        subprocess.Popen(
            [shutil.which("bash"), set_up.project / "scripts/setup_env.sh"],
            env={"PATH": str(set_up.tools), "CALLS": str(set_up.calls)},
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for one in both:
        _, said = one.communicate(timeout=30)
        assert one.returncode == 0, said
    if shutil.which("flock"):
        assert len(set_up.installs()) == 3
