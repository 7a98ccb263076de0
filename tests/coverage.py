"""Line and branch coverage of a folder, from lcov's text on stdin; unit tests do not count.

    coverage.py FOLDER < lcov.info
"""

import sys
from pathlib import Path


def tests_from(file):
    """The line where a file's unit tests begin: they come last."""
    lines = Path(file).read_text().splitlines()
    return next((n for n, line in enumerate(lines, 1) if line == "#[cfg(test)]"), len(lines) + 1)


def percent(hit, of):
    return f"{100 * hit / of:6.1f} %" if of else "      - "


def main():
    folder, files = sys.argv[1].rstrip("/") + "/", {}
    name = None
    for line in sys.stdin:
        kind, _, rest = line.strip().partition(":")
        if kind == "SF":
            name = rest if f"/{folder}" in rest and "/tests/" not in rest else None
            end, lines, branches = name and tests_from(name), {}, {}
            if name:
                files[name[name.index(folder) :]] = (lines, branches)
        elif name and kind == "DA":
            number, count = rest.split(",")[:2]
            if int(number) < end:
                lines[int(number)] = max(lines.get(int(number), 0), int(count))
        elif name and kind == "BRDA":
            number, block, branch, taken = rest.split(",")
            if int(number) < end:
                at = (int(number), block, branch)
                branches[at] = branches.get(at, False) or taken not in ("-", "0")
    total = [0, 0, 0, 0]
    print(f"{'file':<40} {'lines':>8}  {'branches':>8}")
    for name, (lines, branches) in sorted(files.items()):
        figures = [sum(map(bool, lines.values())), len(lines), sum(branches.values()), len(branches)]
        total = [a + b for a, b in zip(total, figures)]
        print(f"{name:<40} {percent(*figures[:2])}  {percent(*figures[2:])}")
    lines, branches = total[:2], total[2:]
    print(f"{folder:<40} {percent(*lines)}  {percent(*branches)}")
    print("lines {} of {}, branches {} of {}".format(*lines, *branches))
    if not files:
        sys.exit(f"coverage: nothing of {folder} was measured")


main()
