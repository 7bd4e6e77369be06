from modelyard.sdk import traffic

STATUS = {
    "traffic": [
        {"revision": "iris-svc-00001", "percent": 90},
        {"revision": "iris-svc-00002", "percent": 10, "tag": "canary", "url": "http://x/versions/canary"},
        {"revision": "iris-svc-00002", "percent": 0, "tag": "beta"},
        {"revision": "iris-svc-00003", "percent": 0, "mirrorPercent": 50},
        {"revision": "iris-svc-00004", "percent": 0, "tag": "old"},
    ]
}


def test_what_each_revision_gets_is_said_once() -> None:
    assert traffic.shares(STATUS) == {
        "iris-svc-00001": "90%",
        "iris-svc-00002": "10%, tag canary, tag beta",
        "iris-svc-00003": "copies of 50%",
        "iris-svc-00004": "tag old",
    }
    assert traffic.shares({}) == {}


def test_only_revisions_with_a_share_answer_callers() -> None:
    assert traffic.answering(STATUS) == ["iris-svc-00001", "iris-svc-00002"]


def test_what_came_of_copies_is_one_line_without_what_is_nought() -> None:
    def said(**mirror: object) -> str:
        return traffic.compared({"traffic": [{"revision": "iris-svc-00001", "percent": 100}, shadow(mirror)]})

    def shadow(mirror: dict[str, object]) -> dict[str, object]:
        return {"revision": "iris-svc-00002", "percent": 0, "mirrorPercent": 100, "mirror": mirror}

    assert traffic.compared({}) == ""
    assert traffic.compared({"traffic": [{"revision": "iris-svc-00001", "percent": 100}]}) == ""
    equal = said(compared=7, different=0, noisy=0, skipped=0, largestDifference="0", largestNoise="0")
    assert equal == "iris-svc-00002: 0 of 7 answers to copies differ"
    assert said(
        compared=120,
        different=3,
        noisy=2,
        shadowFailed=4,
        skipped=1,
        largestDifference="0.25",
        largestRelativeDifference="0.0625",
        largestNoise="1e-05",
    ) == (
        "iris-svc-00002: 3 of 120 answers to copies differ, by up to 0.25 (0.0625 of the larger number); "
        "the one that serves differs from itself in 2, by up to 1e-05; only it failed on 4; skipped 1"
    )
    assert said(compared=0, different=0, latencyMilliseconds=12) == "iris-svc-00002: it takes 12 ms"
    alone = "iris-svc-00002: 0 of 7 answers to copies differ; it takes 12 ms"
    assert said(compared=7, latencyMilliseconds=12) == alone
    assert (
        said(compared=7, latencyMilliseconds=12, servingLatencyMilliseconds=9) == f"{alone}, the one that serves 9 ms"
    )
