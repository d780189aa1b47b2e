"""A sweep on Ray: nothing is lost or run twice at a time, whatever dies; and nothing is left running.

What needs Ray is slow: `pip install -e '.[cluster]'`, then `bash tests/run.sh -m slow -k launch`. A process that has
loaded Ray's libraries may hang where a later test starts worker processes.
"""

import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from each import each

from hypergrid.analysis import launch

ROOT = launch.ROOT
STORE_BYTES = 100 * 2**20
# Counts to N in FOLDER/count, a number every 0.1 s, and goes on from there; its log tells what it did.
COUNTER = """
import fcntl, sys, time
from pathlib import Path
folder, n = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(exist_ok=True)
count, log = folder / "count", (folder / "log").open("a", buffering=1)
lock = (folder / ".lock").open("a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit("in use by another process")
if (folder / "DONE").exists():
    sys.exit()
number = int(count.read_text()) if count.exists() else 0
while number < n:
    time.sleep(0.1)
    number += 1
    log.write(f"{number}\\n")
    (folder / "next").write_text(str(number))
    (folder / "next").rename(count)
(folder / "DONE").touch()
log.write("done\\n")
"""


@pytest.fixture(scope="module")
def own_token(tmp_path_factory):
    """The tests' Ray has a token of its own: the one in the user's home is neither read nor made."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def cluster(own_token):
    """Two nodes of one CPU each; the second has a GPU, as far as Ray knows."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def start(cluster, tmp_path):
    """``start(lines, *options)``: the command, running on the cluster; its output goes to tmp_path/out."""

    def start(lines: list[str], *options: str) -> subprocess.Popen:
        (tmp_path / "lines").write_text("\n".join(lines))
        command = [sys.executable, "-m", "hypergrid.analysis.launch", tmp_path / "lines", "--logs", tmp_path / "logs"]
        command += ["--address", cluster.address, *options]
        with (tmp_path / "out").open("a") as out:
            return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)

    return start


@pytest.fixture
def counters(tmp_path):
    """``counters(n_lines, n)``: lines that count to n, in tmp_path/counter0 and so on."""
    (tmp_path / "counter.py").write_text(COUNTER)

    def counters(n_lines: int, n: int) -> list[str]:
        return [f"python {tmp_path}/counter.py {tmp_path}/counter{i} {n}" for i in range(n_lines)]

    return counters


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def output(tmp_path: Path) -> str:
    return (tmp_path / "out").read_text()


def n_counting(tmp_path: Path) -> int:
    return len(list(tmp_path.glob("counter*/count")))


def commands_with(text: str) -> list[str]:
    """Command lines of living processes that name ``text``."""
    found = []
    for process in psutil.process_iter():
        try:
            line = shlex.join(process.cmdline())
        except psutil.Error:
            continue
        found += [line] if text in line and "hypergrid.analysis.launch" not in line else []
    return found


def assert_all_counted(tmp_path: Path, n_lines: int, n: int) -> None:
    """Every number of every line is there, in order, one that was killed at a number perhaps twice."""
    for i in range(n_lines):
        log = (tmp_path / f"counter{i}" / "log").read_text().split()
        assert list(dict.fromkeys(log)) == [*map(str, range(1, n + 1)), "done"] and len(log) <= n + 3


def n_starts(tmp_path: Path) -> int:
    return sum(path.read_text().count("[launch]") for path in (tmp_path / "logs").iterdir())


@pytest.mark.slow
def test_a_sweep_outlives_a_node_and_a_worker(cluster, start, counters, tmp_path):
    process = start(counters(5, 60))
    wait_for(lambda: n_counting(tmp_path) == 2)
    worker = next(p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::run_line"))
    worker.kill()
    wait_for(lambda: n_starts(tmp_path) == 3)
    wait_for(lambda: len(commands_with(str(tmp_path / "counter.py"))) >= 2)  # both nodes are busy again
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    assert process.wait(90) == 0, output(tmp_path)
    assert_all_counted(tmp_path, 5, 60)
    assert output(tmp_path).splitlines()[-1] == "5 done, 0 failed"
    assert n_starts(tmp_path) > 6
    assert len(output(tmp_path).splitlines()) < 15, "Ray says little"
    cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_the_next_launch_goes_on(start, counters, tmp_path):
    lines = [f"({line}) | cat" for line in counters(3, 30)]  # in which the shell's own child is not all there is
    process = start(lines)
    wait_for(lambda: n_counting(tmp_path) == 2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert commands_with(str(tmp_path)) == []
    assert n_counting(tmp_path) == 2, "what waited was not started"
    assert "go on" in output(tmp_path) and "Traceback" not in output(tmp_path)
    assert start(lines).wait(60) == 0
    assert_all_counted(tmp_path, 3, 30)


@pytest.mark.slow
def test_runs_stop_when_the_launcher_is_killed(start, counters, tmp_path):
    process = start([f"({line}) | cat" for line in counters(2, 600)])
    wait_for(lambda: n_counting(tmp_path) == 2)
    process.kill()
    wait_for(lambda: commands_with(str(tmp_path)) == [], 30)


@pytest.mark.slow
def test_failures_are_retried_then_told_and_repetitions_dropped(start, tmp_path):
    flaky = f"echo again >> {tmp_path}/flaky; test $(wc -l < {tmp_path}/flaky) = 2"
    broken = "echo the reason >&2; exit 3"
    once = f"echo once >> {tmp_path}/once"
    assert start([flaky, once, "", broken, "# no line", once + " "], "--retries", "1").wait(60) == 1
    assert (tmp_path / "once").read_text() == "once\n"
    assert (tmp_path / "flaky").read_text() == "again\nagain\n"
    assert output(tmp_path).splitlines()[-3:-1] == ["2 done, 1 failed", f"failed: {broken}"]
    (log,) = (path for path in (tmp_path / "logs").iterdir() if "exit-3" in path.name)
    assert output(tmp_path).splitlines()[-1] == f"    {log}: exit status 3: the reason"
    assert log.read_text().count("[launch]") == log.read_text().count("\nthe reason\n") == 2
    assert len(list((tmp_path / "logs").iterdir())) == 3


@pytest.mark.slow
def test_a_line_gets_its_gpu_and_this_python(start, tmp_path):
    line = f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/gpu; pwd > {tmp_path}/pwd; command -v python > {tmp_path}/python'
    assert start([line], "--gpus", "1").wait(60) == 0, output(tmp_path)
    assert (tmp_path / "gpu").read_text() == "0\n"
    assert (tmp_path / "pwd").read_text() == f"{ROOT}\n"
    assert (tmp_path / "python").read_text() == f"{Path(sys.executable).parent}/python\n"


@pytest.mark.slow
def test_more_than_any_node_has_is_refused(start, tmp_path):
    assert start(["true"], "--gpus", "2").wait(60) == 2
    assert output(tmp_path) == "error: no node has 1 CPUs and 2 GPUs: lower --cpus or --gpus\n"
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_a_folder_of_logs_that_cannot_be_made_is_one_sentence(start, tmp_path):
    assert start(["true"], "--logs", "/proc/logs").wait(60) == 2
    assert (
        output(tmp_path).startswith("error: cannot create the folder /proc/logs (")
        and output(tmp_path).count("\n") == 1
    )


@pytest.mark.slow
def test_a_sweep_of_the_suite_on_a_ray_of_its_own(own_token, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")
    env = os.environ | {"SCALE": "0.00005", "SEEDS": "1", "ENVIRONMENTS": "hard", "OBJECTIVES": "tb"}
    env |= {"APPROACHES": "uniform tlm", "OUTPUT_DIR": str(tmp_path / "runs"), "PYTHON_LAUNCH": sys.executable}
    sweep = f"bash {ROOT}/hypergrid/sweeps/figure1.sh | sed 's/$/ --env.ndim=2 --env.height=8/'"
    command = f'{sweep} | "$PYTHON_LAUNCH" -m hypergrid.analysis.launch --logs {tmp_path}/logs'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2 done, 0 failed"
    assert done.stderr == ""
    runs = sorted(path.parent for path in (tmp_path / "runs").rglob("DONE"))
    assert [run.parent.name.split("-")[1] for run in runs] == ["tlm", "uniform"]
    for run in runs:
        assert (run / "metrics.csv").read_text().splitlines()[-1].startswith("4,64,")


BAD = [
    ([], "", "there is no command to run"),
    ([], "\n# nothing\n  \n", "there is no command to run"),
    (["missing.txt"], "", "missing.txt"),
    (["--retries", "-1"], "true", "must be 0 or more"),
    (["--cpus", "-1", "--gpus", "1"], "true", "must be 0 or more"),
    (["--cpus", "0"], "true", "a run must take some CPU or GPU"),
    (["--cpus", "nan"], "true", "must be 0 or more"),
]


@each("arguments,text,reason", BAD)
def test_bad_input_is_one_sentence(arguments, text, reason):
    command = [sys.executable, "-m", "hypergrid.analysis.launch", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and reason in done.stderr


def test_without_ray_one_sentence_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "lines").write_text("true")
    assert launch.main([str(tmp_path / "lines")]) == 2
    assert capsys.readouterr().err == "error: this needs Ray: pip install -e '.[cluster]'\n"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch, capsys, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

    def refuse(address, **options):
        raise ConnectionError(f"Could not find any running Ray instance at {address}.\nMore.")

    monkeypatch.setattr(ray, "init", refuse)
    (tmp_path / "lines").write_text("true")
    assert launch.main([str(tmp_path / "lines"), "--address", "auto"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: no Ray at auto (Could not find any running Ray instance at auto.)"
    )


def test_log_files_tell_lines_apart():
    lines = [
        "python a/run.py --general x/general.py:1 --env x/e.py:hard --algo.beta=0.5 --zero --out /some/runs",
        "python a/run.py --general x/general.py:2 --env x/e.py:hard --algo.beta=0.5 --out /some/runs",
        "sh -c 'exit 3' > /dev/null",
    ]
    logs = launch.read_lines("\n# no line\n".join([*lines, lines[0]]), Path("logs"))
    assert list(logs) == lines
    assert [path.name[:-13] for path in logs.values()] == [
        "python-run.py-general-general.py-1-env-e.py-hard-algo.beta=0.5-zero-out-runs",
        "python-run.py-general-general.py-2-env-e.py-hard-algo.beta=0.5-out-runs",
        "sh-c-exit-3-null",
    ]
    assert launch.read_lines(lines[1], Path("logs"))[lines[1]] == logs[lines[1]], "the same in every launch"
