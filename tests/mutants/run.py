#!/usr/bin/env python3
"""Proves the simulation: each mutant of mutants.toml must be found by the invariant it names.

    run.py [WORD]           all mutants, or those whose name or invariant has the word in it
    run.py build [WORD]     only builds them
    run.py judge [WORD]     only runs what was built

Every mutant is built in a copy of the project under target/mutants.
"""
import json, os, pathlib, shutil, subprocess, sys, time, tomllib

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
COPY = PROJECT / "target" / "mutants"
# Of its own: the project's binaries have the same names.
TARGET = COPY / "target"
SEEDS = os.environ.get("TAPGATE_SEEDS", "10000")
CARGO = os.environ.get("CARGO", "cargo")


def copy_project():
    """The tracked files and new ones; nothing else of the copy changes, so little is built anew."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT,
                            check=True, capture_output=True, text=True).stdout.splitlines()
    for name in listed:
        source, target = PROJECT / name, COPY / name
        if not source.is_file():
            continue
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def mutate(mutant):
    """Applies the edits; gives the files as they were."""
    before = {}
    for edit in mutant["edit"]:
        path = COPY / edit["file"]
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(edit["old"]) != 1:
            raise SystemExit(f"{edit['file']}: {text.count(edit['old'])} places for "
                             f"{mutant['name']!r}; the mutant must follow the code")
        path.write_text(text.replace(edit["old"], edit["new"]))
    return before


def build(mutant):
    """Builds the simulation with the mutant in it and keeps the binary."""
    before = mutate(mutant)
    try:
        environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
        built = subprocess.run(
            [CARGO, "test", "--locked", "--test", "simulation", "--no-run", "--message-format=json"],
            cwd=COPY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        for path, text in before.items():
            path.write_text(text)
    if built.returncode != 0:
        raise SystemExit(f"{mutant['name']!r} does not build:\n{built.stderr[-2000:]}")
    messages = map(json.loads, built.stdout.splitlines())
    made = [message["executable"] for message in messages if message.get("executable")]
    shutil.copy(made[-1], binary_of(mutant))


def binary_of(mutant):
    return COPY / ("".join(c if c.isalnum() else "-" for c in mutant["name"])[:80] + ".bin")


def judge(mutant):
    """Why the mutant survives; None where it is found."""
    found = f"invariant {mutant['invariant']} is broken"
    environment = {"TAPGATE_SEEDS": SEEDS, "TAPGATE_UNTIL": mutant["invariant"],
                   "RUST_BACKTRACE": "0"}
    ran = subprocess.run([binary_of(mutant), "thousands_of_seeds", "--nocapture"], cwd=COPY,
                         env=os.environ | environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = [line for line in ran.stdout.splitlines() if found in line]
    if ran.returncode != 0 and lines:
        seed = [line for line in ran.stdout.splitlines() if line.startswith("seed ")]
        print(f"    {(seed or ['?'])[0].split(';')[0]}: {lines[0][:150]}")
        return None
    return f"{SEEDS} seeds do not find it\n" + ran.stdout[-1500:]


def main():
    words = sys.argv[1:]
    phases = [words.pop(0)] if words and words[0] in ("build", "judge") else ["build", "judge"]
    word = words[0] if words else ""
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    mutants = [m for m in mutants if word in m["name"] or word in m["invariant"]]
    COPY.mkdir(parents=True, exist_ok=True)
    copy_project()
    survivors = 0
    for mutant in mutants:
        began = time.monotonic()
        print(f"{mutant['invariant']}: {mutant['name']}", flush=True)
        if "build" in phases:
            build(mutant)
        if "judge" in phases:
            survives = judge(mutant)
            survivors += survives is not None
            verdict = f"SURVIVES: {survives}" if survives else "found"
            print(f"    {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    if survivors:
        raise SystemExit(f"{survivors} mutants survive")


main()
