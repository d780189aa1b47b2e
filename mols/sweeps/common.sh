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

# choose_seeds DEFAULT
choose_seeds() {
    choose SEEDS "$1" "[1-9][0-9]{0,8}" "a whole number from 1 on"
}

# choose_approaches DEFAULT: any rows of the table of approaches.
choose_approaches() {
    local rows
    rows=$(tr -d '\n' <"$root/$suite/common/backward_loss.py" | grep -o 'BackwardApproach( *"[^"]*"' | cut -d '"' -f 2)
    choose APPROACHES "$1" "${rows//$'\n'/|}"
}

# choose_learning_rates DEFAULT: rewritten as the results have them, so that 5e-4 is 0.0005.
choose_learning_rates() {
    local number="([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]+)?"
    choose LEARNING_RATES "$1" "$number" "a number greater than 0"
    LEARNING_RATES=$(for rate in $LEARNING_RATES; do awk "BEGIN { print $rate + 0 }"; done)
    choose LEARNING_RATES "$1" "[1-9].*|0\..*" "a number greater than 0"
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

# interval N TOTAL: N iterations between evaluations, or fewer where TOTAL would give a curve less than 50 points.
interval() {
    local shorter=$((($2 + 49) / 50))
    echo $(($1 < shorter ? $1 : shorter))
}

# results_versions: of this suite, "objective=version" for each objective, as its run folders record them.
results_versions() {
    local python=$root/.venv/bin/python
    [ -x "$python" ] || python=$(command -v python || command -v python3) || refuse "there is no python: install it"
    (cd "$root" && "$python" -c "import $suite.suite as s; print(*(f'{k}={v}' for k, v in s.RESULTS_VERSIONS.items()))") ||
        refuse "$python does not tell the results versions: see above"
}

# measured TRAJECTORIES FIELDS CSV: a line " environment objective approach learning_rate seed FIELDS " for each run
# that the CSV file has, if there is one, with a last row of that many trajectories and today's results version. FIELDS are
# further columns; an empty cell reads -.
measured() {
    local versions
    [ -f "$3" ] || return 0
    versions=$(results_versions) || exit
    awk -F, -v total="$1" -v fields="learning_rate seed $2" -v versions=" $versions " '
        function finish() {
            if (last == total && index(versions, " " version " ")) print run " "
        }
        function value(name,   text) {
            text = name in column ? $column[name] : ""
            return text == "" ? "-" : text ~ /^[0-9.]/ ? text + 0 : text
        }
        { sub(/\r$/, "") }
        NR == 1 {
            for (i = 1; i <= NF; i++) column[$i] = i
            n = split(fields, names, " ")
            next
        }
        {
            id = " " $column["environment"] " " $column["objective"] " " $column["approach"]
            for (i = 1; i <= n; i++) id = id " " value(names[i])
            if (NR > 2 && (id != run || value("step") <= step)) finish()
            run = id
            step = value("step")
            last = value("trajectories")
            version = $column["objective"] "=" $column["results_version"]
        }
        END { if (NR > 1) finish() }
    ' "$3"
}
