# Sourced by the sweeps of this folder: what they read from the environment, and which runs are measured already.
# This file is the same, byte for byte, in every suite.
set -f  # no word is a pattern of file names
export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
suite=$(basename "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)")

# refuse SENTENCE
refuse() {
    echo "error: $1" >&2
    exit 2
}

# choose NAME DEFAULT PATTERN [ALLOWED]: checks the words of variable NAME, drops repetitions.
choose() {
    local name=$1 default=$2 pattern=$3 allowed=${4:-one of ${3//|/, }} word chosen=" "
    for word in ${!name:-$default}; do
        [[ $word =~ ^($pattern)$ ]] || refuse "$name has '$word': each word must be $allowed"
        case $chosen in *" $word "*) ;; *) chosen+="$word " ;; esac
    done
    [ "$chosen" != " " ] || refuse "$name has no word: leave it unset for '$default'"
    printf -v "$name" %s "$chosen"
}

# choose_scale: SCALE, the fraction of the paper's iterations; 1 by default.
choose_scale() {
    SCALE=${SCALE:-1}
    [[ $SCALE =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]+)?$ ]] && awk "BEGIN { exit !(0 < $SCALE && $SCALE <= 1) }" ||
        refuse "SCALE is '$SCALE': it must be a number greater than 0 and at most 1, such as 0.1"
}

# choose_output_dir: OUTPUT_DIR, the folder of the run folders; runs by default.
choose_output_dir() {
    OUTPUT_DIR=${OUTPUT_DIR:-runs}
    [[ $OUTPUT_DIR =~ ^[A-Za-z0-9_./=+@%-]+$ && $OUTPUT_DIR != -* ]] ||
        refuse "OUTPUT_DIR is '$OUTPUT_DIR': take a folder's name of letters, digits and _./=+@%-"
}

# scaled N: SCALE of N iterations, rounded up to whole ones, at least 1.
scaled() {
    awk "BEGIN { exact = $1 * $SCALE; n = int(exact); if (n < exact - 1e-6 || n < 1) n++; print n }"
}

# measured TRAJECTORIES CSV: a line " environment objective approach learning_rate seed " for each run in the CSV file
# whose last row has that many trajectories and which today's code made.
measured() {
    local python version
    [ -f "$2" ] || return 0
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=$(command -v python || command -v python3) || refuse "there is no python: install it"
    version=$(cd "$root" && "$python" -m "$suite.provenance") || refuse "$python cannot tell the code version: see above"
    awk -F, -v total="$1" -v version="$version" '
        function finish() { if (last == total && code == version) print " " run " " }
        { sub(/\r$/, "") }
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        {
            id = $column["environment"] " " $column["objective"] " " $column["approach"]
            id = id " " $column["learning_rate"] + 0 " " $column["seed"]
            step = $column["step"] + 0
            if (id != run || step <= before) finish()
            run = id; before = step; last = $column["trajectories"] + 0; code = $column["code_version"]
        }
        END { if (NR > 1) finish() }
    ' "$2"
}
