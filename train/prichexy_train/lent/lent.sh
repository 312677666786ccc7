#!/usr/bin/env bash
# Carries on with a packed experiment on a machine with a GPU and torch, and without a network.
# What `prichexy-train pack` wrote is brought there in as many journeys as it takes.
#
#   lent.sh take WORK FILE...              keep parts and parts.sha256 in WORK; unpack and install
#                                          when all are there
#   lent.sh run WORK MINUTES [PROCESSES]   go on with the table, in so many processes at once
#   lent.sh bring WORK OUT [MIB]           all that is new, in files of at most so many MiB
#
# And at home, where the runs belong:
#
#   lent.sh back OUT RUNS                  put into RUNS what was brought
#
# `take` and `run` end with 75 when something is still to come; run them again.
set -euo pipefail

die() {
    printf '%s\n' "lent.sh: $*" >&2
    exit 2
}

take() {
    local work=$1 part
    shift
    mkdir -p "$work/parts"
    cp -- "$@" "$work/parts/"
    [ -f "$work/parts/parts.sha256" ] || die "bring parts.sha256, too"
    cmp --silent "$work/parts/parts.sha256" "$work/unpacked" && return 0
    while read -r _ part; do
        if [ ! -f "$work/parts/$part" ]; then
            echo "still to come: $part"
            return 75
        fi
    done <"$work/parts/parts.sha256"
    (cd "$work/parts" && sha256sum --quiet --check parts.sha256) || die "a part is damaged"
    rm -rf "$work/pack" "$work/site"
    mkdir -p "$work/pack" "$work/runs" "$work/data" "$work/logs"
    # Python reads xz wherever it is; tar needs a program for it.
    (cd "$work/parts" && cut -d ' ' -f 3 parts.sha256 | xargs cat) |
        python3 -c 'import sys, tarfile
safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as archive:
    archive.extractall(sys.argv[1], **safely)' "$work/pack"
    if [ -d "$work/pack/wheels" ]; then
        python3 -m pip install --quiet --no-index --no-deps --no-cache-dir \
            --target "$work/site" "$work"/pack/wheels/*.whl
    fi
    if [ -d "$work/pack/runs" ]; then cp -r "$work/pack/runs/." "$work/runs/"; fi
    cp "$work/parts/parts.sha256" "$work/unpacked"
}

table() { # MINUTES
    local arguments
    mapfile -t arguments <table.args
    python3 -m prichexy_train table "${arguments[@]}" --minutes "$1"
}

run() {
    local work minutes=$2 processes=${3:-1} number ended result=0 pids=()
    work=$(cd "$1" && pwd)
    [ -e "$work/unpacked" ] || die "$work: parts are still to come"
    cd "$work/pack"
    export PYTHONPATH=$work/site:$work/pack/code PYTHONUNBUFFERED=1
    for ((number = 1; number <= processes; number++)); do
        table "$minutes" >>"$work/logs/$number.log" 2>&1 &
        pids+=($!)
    done
    for number in "${!pids[@]}"; do
        ended=0
        wait "${pids[$number]}" || ended=$?
        echo "process $((number + 1)) ended with $ended"
        tail -n 2 "$work/logs/$((number + 1)).log"
        # A failure counts more than that something is left to do.
        if [ "$ended" -ne 0 ] && { [ "$result" -eq 0 ] || [ "$result" -eq 75 ]; }; then
            result=$ended
        fi
    done
    return "$result"
}

# Of finished runs, of the report, and of attacks what they have recorded. A training that is not
# finished stays whole and here: its checkpoint is large, and its weights belong to that.
new_files() {
    local folder
    for folder in */; do
        if [ -e "$folder/result.json" ] || [ -d "$folder/records" ] || [ "$folder" = report/ ]; then
            find "$folder" -type f -newer ../unpacked ! -name checkpoint.pt ! -name .lock ! -name .turn \
                ! -path '*/tensorboard/*' ! -path '*/attempts/*' -print0
        fi
    done
}

bring() {
    local work=$1 out=$2 mib=${3:-15}
    mkdir -p "$out"
    rm -f "$out"/runs.tar.*
    (cd "$work/runs" && new_files | sort -z | tar -c --null --files-from -) |
        split --bytes "${mib}M" --numeric-suffixes=1 --suffix-length=4 - "$out/runs.tar."
    cp "$work"/logs/*.log "$out/" 2>/dev/null || true
    ls -l "$out"
}

back() {
    local out=$1 runs=$2
    mkdir -p "$runs"
    cat "$out"/runs.tar.* | tar -x -C "$runs"
}

command=${1:-}
shift || true
[[ $command =~ ^(take|run|bring|back)$ ]] && [ $# -ge 2 ] ||
    die "take WORK FILE..., run WORK MINUTES, bring WORK OUT or back OUT RUNS"
"$command" "$@"
