#!/usr/bin/env bash
# Prints the runs of a smaller experiment than the paper's figures 2 and 3, which a laptop finishes: strings of 32 bits,
# written 4 bits at a time, 8,000 iterations. One command a line, to be run at the repository's root.
#
#     bash bitseq/sweeps/figure2_small.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS, LEARNING_RATES (three of them for figure 3), OBJECTIVES, APPROACHES; SCALE, the fraction
# of 8,000 iterations; OUTPUT_DIR. maxent is uniform on these strings, and left out.
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 8000 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
start=$((iterations > 50 ? 50 : iterations / 2))
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3 4}; do
    for rate in ${LEARNING_RATES:-0.002}; do
        for objective in ${OBJECTIVES:-munchausen_dqn db tb subtb}; do
            for approach in ${APPROACHES:-uniform naive tlm pessimistic}; do
                case $objective in *dqn) replay=" --start_learning $start" ;; *) replay="" ;; esac
                echo "python bitseq/run.py --n 32 --k 4 --mode_threshold 2 --seed $seed --objective $objective" \
                    "--backward_approach $approach --learning_rate $rate --num_iterations $iterations$replay" \
                    "--validate_every $every --output_dir $folder --if_exists resume"
            done
        done
    done
done
