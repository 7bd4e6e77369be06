"""A front before a worker process: what callers see of its life and death."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from front_testing import Answer, Front, body, post, until

INFER = "/v2/models/logistic/infer"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    rows = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 4.0], [5.0, 4.0]])
    path = tmp_path / "logistic.skops"
    skops.io.dump(LogisticRegression().fit(rows, [3, 3, 8, 8]), path)
    with Front(tmp_path, {"logistic": path}) as found:
        yield found
        assert found.stop() == 0
        assert "Traceback" not in found.log


def workers(front: Front) -> list[psutil.Process]:
    return [child for child in psutil.Process(front.process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def ask(front: Front, row: list[float]) -> Answer:
    with front.client() as client:
        return client.ask(post(INFER, body(row, name="X", datatype="FP64", shape=(1, 2))))


def test_a_scikit_learn_model_answers_labels_and_probabilities(front: Front) -> None:
    outputs = {output["name"]: output for output in ask(front, [5, 5]).json["outputs"]}
    assert outputs["label"]["data"] == [8]
    assert outputs["probabilities"]["shape"] == [1, 2]
    assert sum(outputs["probabilities"]["data"]) == pytest.approx(1)


def test_a_killed_worker_is_replaced_and_callers_only_ever_see_503_with_retry_after(front: Front) -> None:
    (worker,) = workers(front)
    answers: list[Answer] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            answers.append(ask(front, [5, 5]))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: len(answers) > 20)
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: [each.pid for each in workers(front)] not in ([], [worker.pid]))
        seen = len(answers)
        until(lambda: any(answer.status == 200 for answer in answers[seen:]))
    finally:
        stop.set()
        for caller in callers:
            caller.join(timeout=30)
    failed = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in failed} <= {503}
    assert all(int(answer.headers["retry-after"]) >= 1 and answer.error for answer in failed)
    assert ask(front, [0, 0]).json["outputs"][0]["data"] == [3]


def test_no_worker_survives_its_front(front: Front) -> None:
    (worker,) = workers(front)
    assert front.stop() == 0
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
