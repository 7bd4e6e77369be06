"""Send the patients as if they came in now, again and again, and read what the stream makes of them.

    python replay.py [SECONDS] [RECORDS_PER_SECOND]

It needs `modelyard up .` in this folder and the stream of stream.yaml. Each record has an id of its own, so that one
that was scored twice, or never, is noticed.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import nats
import numpy as np

from modelyard.sdk import broker


async def main(patients: list[dict[str, object]], seconds: float, pace: int) -> None:
    """Prints what came back."""
    connection = await nats.connect(**broker.connect_options())
    run = f"{time.time():.0f}"
    total, began = int(seconds * pace), time.monotonic()
    sent: dict[str, float] = {}
    latencies: list[float] = []
    twice: list[str] = []
    right = 0
    all_there = asyncio.Event()

    async def scored(message: nats.aio.msg.Msg) -> None:
        nonlocal right
        record = json.loads(message.data)
        if not record["id"].startswith(f"{run}-"):
            return  # of another replay
        if record["id"] not in sent:
            twice.append(record["id"])
            return
        latencies.append(time.monotonic() - sent.pop(record["id"]))
        right += record["label"] == record["benign"]
        if not sent and len(latencies) == total:
            all_there.set()

    await connection.subscribe("screening.scored", cb=scored)
    for number in range(total):
        pause = began + number / pace - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        key = f"{run}-{number}"
        sent[key] = time.monotonic()
        record = {"id": key, **patients[number % len(patients)]}
        await connection.publish(f"screening.in.site{number % 7}", json.dumps(record).encode())
    async with asyncio.timeout(60):
        await all_there.wait()
    await connection.close()
    if twice:
        sys.exit(f"{len(twice)} records were scored twice, {twice[0]} among them")
    p50, p99 = (1000 * float(np.percentile(latencies, share)) for share in (50, 99))
    print(f"{total} records in {time.monotonic() - began:.1f} s, each scored once, {right / total:.1%} right")
    print(f"from sending a record to reading its score: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


if __name__ == "__main__":
    asked = [*sys.argv[1:], *("5", "200")[len(sys.argv) - 1 :]]
    lines = Path("patients.jsonl").read_text().splitlines()
    asyncio.run(main([json.loads(line) for line in lines], float(asked[0]), int(asked[1])))
