"""Agent: the latency that the backend adds to the model's first word."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bench.figures import Report, at_most
from bench.parts.api import UNLIMITED, gateway
from bench.parts.common import log
from bench.users import percentile

if TYPE_CHECKING:
    from bench.figures import Row
    from bench.parts.common import Bench

_RUNS = 200
_LIMIT_MS = 100
_FIRST_OF_MODEL = b'"content"'
_FIRST_OF_RUN = b"TEXT_MESSAGE_CONTENT"


def measure_agent(bench: Bench) -> list[Report]:
    how = (
        f"{_RUNS} runs one after the other, and ten at a time as fast as they come; from the request "
        "to the first word, of the model at the gateway and of the run; the model answers at once"
    )
    report = Report("agent", how, _columns)
    for concurrency in (1, 10):
        row = _first_words(bench, concurrency)
        report.runs.append(row)
    alone = report.runs[0]
    for percent in (50, 95):
        name = f"first word above the model's, p{percent}"
        report.figure(name, alone[f"above_p{percent}_ms"], "ms", at_most(_LIMIT_MS))
    return [report]


def _first_words(bench: Bench, concurrency: int) -> Row:
    site = bench.site
    load_average = round(os.getloadavg()[0], 2)
    with site.new_run() as run, gateway(site) as address:
        settings = {
            **UNLIMITED,
            "RUNS_PER_USER": "1000",
            "LITELLM_URL": address,
            "LITELLM_API_KEY": "sk-bench",
        }
        with site.instance(run, settings) as (process, port):
            token = site.token(port)
            model_port = int(address.rpartition(":")[2])
            model = _measure(concurrency, lambda: _of_model(model_port))
            used = process.cpu_seconds()
            runs = _measure(concurrency, lambda: _of_run(port, token))
            used = process.cpu_seconds() - used
    row = {
        "at_once": concurrency,
        "runs": len(runs),
        "cpu_ms": used * 1000 / (len(runs) + 1),
        "load_average": load_average,
    }
    for percent in (50, 95):
        row[f"model_p{percent}_ms"] = percentile(model, percent)
        row[f"run_p{percent}_ms"] = percentile(runs, percent)
        row[f"above_p{percent}_ms"] = row[f"run_p{percent}_ms"] - row[f"model_p{percent}_ms"]
    log(
        f"{concurrency} at a time: {statistics.median(runs):.1f} ms, p95 {row['run_p95_ms']:.1f} ms"
    )
    return row


def _measure(concurrency: int, request: Any) -> list[float]:
    """Return sorted latencies in milliseconds.

    The first call only warms caches up and is not counted.
    """
    request()
    with ThreadPoolExecutor(concurrency) as pool:
        return sorted(pool.map(lambda _: request(), range(_RUNS)))


def _of_model(port: int) -> float:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    return _milliseconds_until(port, "/v1/chat/completions", body, {}, _FIRST_OF_MODEL)


def _of_run(port: int, token: str) -> float:
    body = {
        "protocolVersion": "1.0",
        "threadId": uuid4().hex,
        "runId": uuid4().hex,
        "messages": [{"id": "1", "role": "user", "content": "Hello"}],
    }
    headers = {"Authorization": f"Bearer {token}"}
    return _milliseconds_until(port, "/agent", body, headers, _FIRST_OF_RUN)


def _milliseconds_until(
    port: int, path: str, body: Any, headers: dict[str, str], marker: bytes
) -> float:
    """Return the milliseconds until a line with the word arrives; reads the response to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    began = time.perf_counter()
    connection.request(
        "POST", path, json.dumps(body), {**headers, "Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    first = None
    for line in answer:
        if first is None and marker in line:
            first = (time.perf_counter() - began) * 1000
    connection.close()
    if first is None:
        raise RuntimeError(f"{path} answered {answer.status} without a word")
    return first


def _columns(row: Row) -> Row:
    return {
        "at a time": row["at_once"],
        "runs": row["runs"],
        **{
            f"{what} p{percent} ms": row[f"{what}_p{percent}_ms"]
            for what in ("model", "run", "above")
            for percent in (50, 95)
        },
        "cpu ms/run": row["cpu_ms"],
        "load": row["load_average"],
    }
