"""Train two classifiers of handwritten digits: the one that serves, and a smaller one that may follow it.

    python train.py

Writes models/large.onnx, models/small.onnx, and the images nobody trained on as heldout.npz (`images`: FP64 [n, 64],
`labels`: INT64 [n]).
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    """Deterministic, for the same versions of the libraries."""
    digits = load_digits()
    train, heldout, labels, heldout_labels = train_test_split(
        digits.data, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    (folder / "models").mkdir(exist_ok=True)
    for name, trees in (("large", 100), ("small", 10)):
        forest = RandomForestClassifier(n_estimators=trees, random_state=0).fit(train, labels)
        onnx = to_onnx(
            forest, initial_types=[("X", DoubleTensorType([None, train.shape[1]]))], options={"zipmap": False}
        )
        (folder / "models" / f"{name}.onnx").write_bytes(onnx.SerializeToString())
    np.savez(folder / "heldout.npz", images=heldout, labels=heldout_labels)
    print(f"trained on {len(train)} images, {len(heldout)} held out; wrote models/large.onnx and models/small.onnx")


if __name__ == "__main__":
    main(Path(__file__).parent)
