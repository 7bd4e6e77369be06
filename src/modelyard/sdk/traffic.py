"""Which revision gets what, for people. Pure."""

from collections.abc import Mapping
from typing import Any


def shares(status: Mapping[str, Any]) -> dict[str, str]:
    """By revision: `10%`, `10%, tag canary`, `copies of 50%`; of a service's status."""
    found: dict[str, list[str]] = {}
    for target in status.get("traffic") or ():
        words = found.setdefault(str(target.get("revision")), [])
        if target.get("mirrorPercent"):
            words.append(f"copies of {target['mirrorPercent']}%")
        elif target.get("percent") or not target.get("tag"):
            words.append(f"{target.get('percent')}%")
        if target.get("tag"):
            words.append(f"tag {target['tag']}")
    return {revision: ", ".join(words) for revision, words in found.items()}


def compared(status: Mapping[str, Any]) -> str:
    """What came of comparing answers to copies, in a sentence, or ""; of a service's status."""
    for target in status.get("traffic") or ():
        found = target.get("mirror")
        if found:
            return f"{target.get('revision')}: {_compared(found)}"
    return ""


def _compared(found: Mapping[str, Any]) -> str:
    words = [f"{found.get('different', 0)} of {found.get('compared', 0)} answers to copies differ"]
    if found.get("largestDifference", "0") != "0":
        relative = found.get("largestRelativeDifference")
        words[0] += f", by up to {found['largestDifference']} ({relative} of the larger number)"
    noise = found.get("largestNoise", "0")
    if found.get("noisy") or noise != "0":
        words.append(f"the one that serves differs from itself in {found.get('noisy', 0)}, by up to {noise}")
    failed = {
        "only it failed on": found.get("shadowFailed"),
        "only the one that serves failed on": found.get("servingFailed"),
        "both failed on": found.get("bothFailed"),
        "skipped": found.get("skipped"),
    }
    words += [f"{what} {count}" for what, count in failed.items() if count]
    if not found.get("compared") and not any(failed.values()):
        words = []  # there are copies, and nothing is compared
    latency, serving = found.get("latencyMilliseconds"), found.get("servingLatencyMilliseconds")
    if latency is not None:
        words.append(f"it takes {latency} ms" + ("" if serving is None else f", the one that serves {serving} ms"))
    return "; ".join(words)


def answering(status: Mapping[str, Any]) -> list[str]:
    """The revisions that answer callers; of a service's status."""
    return list(dict.fromkeys(str(each.get("revision")) for each in status.get("traffic") or () if each.get("percent")))
