"""`python -m modelyard.runtime.progress`: see `main`."""

from modelyard.runtime.report.entry import run

if __name__ == "__main__":
    run("modelyard.runtime.progress.main")
