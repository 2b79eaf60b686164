"""Prints what the benchmarks measured as a Markdown table.

pytest -m benchmark --benchmark-json=figures.json && python tests/benchmarks/table.py figures.json
"""

import json
import sys
from pathlib import Path

COLUMNS = ("ours_ms", "theirs_ms", "ratio")


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    print(
        f"| {report['machine_info']['cpu'].get('brand_raw', 'benchmark')} | ours, ms | theirs, ms | theirs / ours | |"
    )
    print("|---|---|---|---|---|")
    for benchmark in report["benchmarks"]:
        facts = dict(benchmark["extra_info"])
        cells = [str(facts.pop(column, "")) for column in COLUMNS]
        rest = ", ".join(f"{name} {value}" for name, value in facts.items())
        print(f"| {benchmark['name']} | {' | '.join(cells)} | {rest} |")


if __name__ == "__main__":
    main()
