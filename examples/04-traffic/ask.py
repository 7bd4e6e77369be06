"""Send every held-out image as a request of its own, and tell which version answered how many, and how well.

    python ask.py [TAG_OR_NUMBER]

It needs `modelyard up .` in this folder and the service of service.yaml. With an argument the requests go to the
address of that tag or revision.
"""

import json
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np

import modelyard


def main(folder: Path, version: str) -> None:
    """Prints one line for each version that answered."""
    heldout = np.load(folder / "heldout.npz")
    with modelyard.Client() as client:
        url = f"{client.url}/v2/models/digits{f'/versions/{version}' if version else ''}/infer"
    answered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for image, label in zip(heldout["images"], heldout["labels"], strict=True):
        row = {"name": "X", "datatype": "FP64", "shape": [1, image.size], "data": image.tolist()}
        body = json.dumps({"inputs": [row], "outputs": [{"name": "label"}]}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
            found = json.load(answer)
        answered[found["model_version"]] += 1
        right[found["model_version"]] += found["outputs"][0]["data"] == [label]
    for number in sorted(answered):
        print(f"version {number}: {answered[number]} answers, {right[number] / answered[number]:.1%} right")


if __name__ == "__main__":
    main(Path(__file__).parent, sys.argv[1] if len(sys.argv) > 1 else "")
