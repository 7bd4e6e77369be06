"""An ETL program: handwritten digits from scikit-learn as Parquet, one part to learn from and one that is held out.

Writes train.parquet and heldout/digits.parquet to OUTPUT_DIR: `id` INT64, `pixels` FP64 [64], `label` INT64.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    """Deterministic, so that a second run commits the same."""
    digits = load_digits()
    ids = np.arange(len(digits.target))
    train, heldout = train_test_split(ids, test_size=0.25, random_state=0, stratify=digits.target)
    (folder / "heldout").mkdir()
    for name, rows in (("train.parquet", train), ("heldout/digits.parquet", heldout)):
        pixels = pa.FixedSizeListArray.from_arrays(digits.data[rows].ravel(), 64)
        pq.write_table(pa.table({"id": ids[rows], "pixels": pixels, "label": digits.target[rows]}), folder / name)
        print(f"{name}: {len(rows)} images")


if __name__ == "__main__":
    main(Path(os.environ["OUTPUT_DIR"]))
