#!/usr/bin/env bash
# Prints the runs of figures 2 (modes found) and 3 (reward correlation), one command a line, to be run at the
# repository's root; printing is the dry run.
#
#     bash bitseq/sweeps/figure2.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS, LEARNING_RATES, OBJECTIVES, APPROACHES; SCALE, the fraction of the paper's 50,000
# iterations; OUTPUT_DIR. Learning rates are chosen on seed 1 and reported on the others: the whole grid has seed 1
# before any other, so SEEDS=1 gives the tuning runs, and SEEDS="2 3 4 5" with the LEARNING_RATES, OBJECTIVES and
# APPROACHES that were chosen the rest. Figure 3 shows all learning rates. maxent is uniform on these strings.
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 50000 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
start=$((iterations > 50 ? 50 : iterations / 2))
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3 4 5}; do
    for rate in ${LEARNING_RATES:-0.0005 0.001 0.002}; do
        for objective in ${OBJECTIVES:-munchausen_dqn db tb subtb}; do
            for approach in ${APPROACHES:-uniform naive maxent tlm pessimistic}; do
                case $objective in *dqn) replay=" --start_learning $start" ;; *) replay="" ;; esac
                echo "python bitseq/run.py --seed $seed --objective $objective --backward_approach $approach" \
                    "--learning_rate $rate --num_iterations $iterations$replay --validate_every $every" \
                    "--output_dir $folder --if_exists resume"
            done
        done
    done
done
