#!/bin/bash
# Prints CHANGELOG.md in Debian's form, for the package: the lines of its newest chapter.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
date=$(LC_ALL=C date -uRd "@${SOURCE_DATE_EPOCH:?}")

printf 'tapgate (%s-1) stable; urgency=medium\n\n' "$version"
# Wrapped lines are joined to their point; Debian wants no line over 80 columns.
awk '/^## /{chapter++} chapter==1 && /^- /{if(p)print p; p=substr($0,3); next}
     chapter==1 && /^  /{p=p " " substr($0,3); next} {if(p)print p; p=""} END{if(p)print p}' CHANGELOG.md |
    tr -d '`' | while read -r point; do
        fold -s -w 74 <<<"$point" | sed '1s/^/  * /;2,$s/^/    /;s/ *$//'
    done
printf '\n -- tapgate maintainers <maintainers@tapgate.invalid>  %s\n' "$date"
