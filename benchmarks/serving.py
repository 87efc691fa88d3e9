"""How many candidates a second does the ranking server score, beside MLflow's server and beside whole rows in one process?

    python benchmarks/serving.py
    python benchmarks/serving.py --reloads 20 --items 1000000

A MIAN of ``conf/train/mian.yaml`` over the demo's fields, with drawn weights, is registered in a database of its own and served by
``jobs/serve.py`` (ONNX, ``--threads`` scoring threads) and by ``mlflow models serve`` (one worker). All run on the same two cores, one
after the other, the load too: a closed loop of ``--connections`` from ``wrk`` where that is installed, else from
``benchmarks/http_load.py``. Prints one JSON line: ``candidates_per_s`` at saturation; ``vs_mlflow_serve`` and ``vs_rows_in_process``,
that divided by the candidates a second of the other two, the last without HTTP and without encoding; ``p99_ms_at_half``, of requests at
Poisson times at half of saturation, from when each was due; ``rss_mb``, the server's resident memory afterwards; ``ready_s``, from its
start to the first 200 of ``/ready``, the model's download included.

With ``--reloads`` the line is of another benchmark, ``serving_reloads``: ``--requests`` at half of saturation without reloads and with so
many, ``failed`` of both and ``p99_ratio``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ranking_world import ITEMS, requests, rows, write_servable

ROOT = Path(__file__).resolve().parents[1]
LOAD = Path(__file__).with_name("http_load.py")
BODIES = 50
NAME = "ranking"
PORT, MLFLOW_PORT = 18080, 18081
WARM_SECONDS = 2.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_PROXY": "*"}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="How many candidates a second does the ranking server score?")
    parser.add_argument("--candidates", type=int, default=200, help="of a request")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--connections", type=int, default=4, help="of the closed loop")
    parser.add_argument("--threads", type=int, default=2, help="scoring threads of the server")
    parser.add_argument("--items", type=int, default=ITEMS, help="values of the largest vocabulary")
    parser.add_argument("--reloads", type=int, help="measure reloads instead")
    parser.add_argument("--requests", type=int, default=10_000, help="while it reloads, and as many while it does not")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = list(requests(BODIES, given.candidates, given.items))
        (folder / "bodies.json").write_text(json.dumps(made), encoding="utf-8")
        write_servable(folder / "model", given.items)
        found = measure(folder, made, given) if given.reloads is None else measure_reloads(folder, given)
    print(json.dumps(found))


def measure(folder: Path, made: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """The server, MLflow's, and whole rows."""
    uri = register(folder)
    with server(folder, f"models:/{NAME}@champion", given.threads, uri) as (ready, process):
        address = f"http://127.0.0.1:{PORT}/v1/score"
        load(folder / "bodies.json", address, WARM_SECONDS, given.connections)
        ours = saturate(folder / "bodies.json", address, given.seconds, given.connections)
        half = load(folder / "bodies.json", address, given.seconds, given.connections, ours / 2)
        memory = resident_mb(process.pid)
    (folder / "rows.json").write_text(json.dumps([{"dataframe_split": as_split(request)} for request in made]), encoding="utf-8")
    with mlflow_server(uri, folder):
        address = f"http://127.0.0.1:{MLFLOW_PORT}/invocations"
        load(folder / "rows.json", address, WARM_SECONDS, 2)
        theirs = load(folder / "rows.json", address, given.seconds, 2)["requests_per_s"]
    in_process = float(subprocess.check_output([sys.executable, "-c", ROWS, str(folder), str(given.seconds)], env=ENVIRONMENT))
    return {
        "benchmark": "serving",
        "candidates": given.candidates,
        "threads": given.threads,
        "requests_per_s": round(ours, 1),
        "candidates_per_s": round(ours * given.candidates),
        "mlflow_candidates_per_s": round(theirs * given.candidates),
        "rows_candidates_per_s": round(in_process * given.candidates),
        "vs_mlflow_serve": round(ours / theirs, 1),
        "vs_rows_in_process": round(ours / in_process, 2),
        "p50_ms_at_half": round(half["p50_ms"], 2),
        "p99_ms_at_half": round(half["p99_ms"], 2),
        "failed": half["failed"],
        "rss_mb": round(memory),
        "ready_s": round(ready, 2),
        "load": "wrk" if shutil.which("wrk") else "http_load",
    }


def measure_reloads(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Requests while a folder's model is replaced, and while it is not."""
    address = f"http://127.0.0.1:{PORT}/v1/score"
    with server(folder, str(folder / "model"), given.threads, None, "--reload-seconds", "0.5") as (_, process):
        load(folder / "bodies.json", address, WARM_SECONDS, given.connections)
        rate = saturate(folder / "bodies.json", address, given.seconds, given.connections) / 2
        seconds = given.requests / rate
        without = load(folder / "bodies.json", address, seconds, given.connections, rate)
        toucher = subprocess.Popen(
            [sys.executable, "-c", TOUCH, str(folder / "model" / "model.json"), str(given.reloads), str(seconds)]
        )
        reloaded = load(folder / "bodies.json", address, seconds, given.connections, rate)
        toucher.wait()
        memory = resident_mb(process.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    return {
        "benchmark": "serving_reloads",
        "items": given.items,
        "rate": round(rate, 1),
        "requests": without["answered"] + reloaded["answered"],
        "failed": without["failed"] + reloaded["failed"],
        "reloads": round(next(float(line.split()[1]) for line in lines if line.startswith("mian_reloads_total "))),
        "p99_ms_without": round(without["p99_ms"], 2),
        "p99_ms_with": round(reloaded["p99_ms"], 2),
        "p99_ratio": round(reloaded["p99_ms"] / without["p99_ms"], 2),
        "rss_mb": round(memory),
    }


#: Writes a model's description anew at even times, which is another version to the server.
TOUCH = """
import os, sys, time
path, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for _ in range(count):
    time.sleep(seconds / count)
    os.utime(path)
"""
#: Requests a second of whole rows, encoded before, on one thread.
ROWS = """
import json, sys, time
from pathlib import Path
import numpy as np, torch
from mian.scoring.one_user_encoder import OneUserEncoder
from mian.serving import load_servable
torch.set_num_threads(1)
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
servable = load_servable(folder / "model")
encoder = OneUserEncoder(servable.contract, servable.vocabularies, servable.stand_ins)
batches = []
for request in json.loads((folder / "bodies.json").read_text()):
    user = encoder.user(request["user"], request["context"], request["behaviors"])
    candidates = encoder.candidates(user, request["candidates"])
    count = len(next(iter(candidates.values())))
    whole = {name: column.repeat(count, axis=0) for name, column in user.items()} | candidates
    batches.append({name: torch.from_numpy(column) for name, column in whole.items()})
done, started = 0, time.perf_counter()
with torch.inference_mode():
    for batch in batches[:5]:
        servable.model(batch)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        torch.sigmoid(servable.model(batches[done % len(batches)])).numpy()
        done += 1
print(done / (time.perf_counter() - started))
"""
#: Logs the model and registers it, with its graph.
REGISTER = f"""
import sys
from pathlib import Path
import mlflow, pandas as pd, json
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ranking_world import rows
from mian.serving.mlflow_export import log_servable
folder, uri = Path(sys.argv[1]), sys.argv[2]
mlflow.set_tracking_uri(uri)
experiment = mlflow.create_experiment("serving", artifact_location=(folder / "artifacts").as_uri())
(request, *_) = json.loads((folder / "bodies.json").read_text())
with mlflow.start_run(experiment_id=experiment):
    log_servable(folder / "model", pd.DataFrame(rows(request)[:3]), {NAME!r})
mlflow.MlflowClient().set_registered_model_alias({NAME!r}, "champion", "1")
"""


def register(folder: Path) -> str:
    """Put the model into a registry of its own; the registry's address."""
    uri = f"sqlite:///{folder}/mlflow.db"
    subprocess.run([sys.executable, "-c", REGISTER, str(folder), uri], check=True, stdout=sys.stderr, env=ENVIRONMENT)
    return uri


@contextmanager
def server(
    folder: Path, model: str, threads: int, uri: str | None, *arguments: str
) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """The ranking server; the seconds until it was ready, and its process."""
    command = [
        str(ROOT / "jobs" / "serve.py"),
        "--model",
        model,
        "--port",
        str(PORT),
        "--threads",
        str(threads),
        "--engine",
        "onnx",
    ]
    command += [*arguments, *([] if uri is None else ["--tracking-uri", uri])]
    with running([sys.executable, *command], folder, f"http://127.0.0.1:{PORT}/ready") as found:
        yield found


@contextmanager
def mlflow_server(uri: str, folder: Path) -> Iterator[None]:
    """MLflow's scoring server with one worker."""
    command = ["mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@champion", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(MLFLOW_PORT), "--workers", "1"]
    with running([sys.executable, "-m", *command], folder, f"http://127.0.0.1:{MLFLOW_PORT}/ping", MLFLOW_TRACKING_URI=uri):
        yield


@contextmanager
def running(command: list[str], folder: Path, ready: str, **environment: str) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """A process until it answers, and its end afterwards."""
    started = time.perf_counter()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**ENVIRONMENT, **environment}, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while not answers(ready):
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise SystemExit((folder / "server.log").read_text(encoding="utf-8"))
                time.sleep(0.02)
            yield time.perf_counter() - started, process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers(url: str) -> bool:
    """Whether an address answers by 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def saturate(bodies: Path, url: str, seconds: float, connections: int) -> float:
    """Requests a second at saturation; by wrk where it is installed, which takes less of the cores."""
    if not shutil.which("wrk"):
        return float(load(bodies, url, seconds, connections)["requests_per_s"])
    script = bodies.with_suffix(".lua")
    texts = [json.dumps(body) for body in json.loads(bodies.read_text(encoding="utf-8"))]
    script.write_text(
        "bodies = {" + ",\n".join(f"[==[{text}]==]" for text in texts) + "}\ni = 0\nfunction request() i = i % #bodies + 1; "
        'return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[i]) end\n'
        'function done(s) io.write(string.format("rate %f failed %d\\n", s.requests / s.duration * 1e6, s.errors.status)) end\n',
        encoding="utf-8",
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    words = subprocess.check_output(command, text=True).split()
    if words[words.index("failed") + 1] != "0":
        raise SystemExit(f"{url}: requests failed under wrk")
    return float(words[words.index("rate") + 1])


def load(bodies: Path, url: str, seconds: float, connections: int, rate: float | None = None) -> dict[str, Any]:
    """Load from a process of its own, see ``benchmarks/http_load.py``."""
    command = [sys.executable, str(LOAD), url, str(bodies), "--seconds", str(seconds), "--connections", str(connections)]
    command += [] if rate is None else ["--rate", str(rate)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, env=ENVIRONMENT))
    if found["failed"] and rate is None:
        raise SystemExit(f"{url}: {found['failed']} requests failed")
    return found


def resident_mb(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def as_split(request: dict[str, Any]) -> dict[str, Any]:
    """A request as MLflow's server takes it: rows of values under their columns."""
    table = rows(request)
    return {"columns": list(table[0]), "data": [list(row.values()) for row in table]}


if __name__ == "__main__":
    main()
