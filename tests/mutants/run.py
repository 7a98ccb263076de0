#!/usr/bin/env python3
"""Proves the simulation: each mutant of mutants.toml must be found by the invariant it names.

    run.py [WORD]      all mutants, or those whose name has the word in it

Every mutant is built in a copy of the project, whose target folder is kept for the next time.
"""
import os, pathlib, shutil, subprocess, sys, time, tomllib

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
COPY = PROJECT / "target" / "mutants"
SEEDS = os.environ.get("TAPGATE_SEEDS", "3000")
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


def cargo(*arguments, **environment):
    # Mutants are full of code that no lint likes.
    environment = os.environ | {"RUSTFLAGS": "--cap-lints allow"} | environment
    return subprocess.run([CARGO, "test", "--locked", "--test", "simulation", *arguments],
                          cwd=COPY, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def judge(mutant):
    """Why the mutant survives; None where it is found."""
    built = cargo("--no-run")
    if built.returncode != 0:
        return "it does not build:\n" + built.stdout[-2000:]
    binary = built.stdout.rsplit("(", 1)[1].split(")", 1)[0]
    found = f"invariant {mutant['invariant']} is broken"
    environment = {"TAPGATE_SEEDS": SEEDS, "TAPGATE_UNTIL": mutant["invariant"]}
    ran = subprocess.run([COPY / binary, "thousands_of_seeds", "--nocapture"], cwd=COPY, text=True,
                         env=os.environ | environment,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode != 0 and found in ran.stdout:
        lines = [line for line in ran.stdout.splitlines() if found in line]
        print("    " + lines[0][:150])
        return None
    return f"{SEEDS} seeds do not find it\n" + ran.stdout[-1500:]


def main():
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    COPY.mkdir(parents=True, exist_ok=True)
    copy_project()
    survivors = 0
    for mutant in (mutant for mutant in mutants if word in mutant["name"]):
        began = time.monotonic()
        print(f"{mutant['invariant']}: {mutant['name']}", flush=True)
        before = mutate(mutant)
        try:
            survives = judge(mutant)
        finally:
            for path, text in before.items():
                path.write_text(text)
        survivors += survives is not None
        verdict = f"SURVIVES: {survives}" if survives else "found"
        print(f"    {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    if survivors:
        raise SystemExit(f"{survivors} mutants survive")
    print("every mutant is found")


main()
