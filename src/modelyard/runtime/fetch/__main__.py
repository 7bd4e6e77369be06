"""`python -m modelyard.runtime.fetch`: see `main`."""

from modelyard.runtime.report.entry import run

if __name__ == "__main__":
    run("modelyard.runtime.fetch.main")
