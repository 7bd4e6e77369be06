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
