"""Train two classifiers of handwritten digits on the data that scikit-learn ships, and write them to a folder.

    python train.py [FOLDER]

Writes FOLDER/models/forest.onnx, FOLDER/models/regression.skops, the images nobody trained on as FOLDER/heldout.npz
(`images`: FP64 [n, 64], `labels`: INT64 [n]), and three of them as FOLDER/sample.npy.
"""

import sys
from pathlib import Path

import numpy as np
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(folder: Path) -> None:
    """Deterministic: the same folder content every time, for the same versions of the libraries."""
    digits = load_digits()
    train, heldout, labels, heldout_labels = train_test_split(
        digits.data, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)

    forest = RandomForestClassifier(n_estimators=100, random_state=0).fit(train, labels)
    # zipmap off: probabilities as one tensor, and not as a list of dictionaries that no protocol carries.
    onnx = to_onnx(
        forest,
        initial_types=[("X", DoubleTensorType([None, train.shape[1]]))],
        options={"zipmap": False},
    )
    (models / "forest.onnx").write_bytes(onnx.SerializeToString())

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    skops.io.dump(regression, models / "regression.skops")

    np.savez(folder / "heldout.npz", images=heldout, labels=heldout_labels)
    np.save(folder / "sample.npy", heldout[:3])
    print(f"trained on {len(train)} images, {len(heldout)} held out; wrote {models}/forest.onnx and regression.skops")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
