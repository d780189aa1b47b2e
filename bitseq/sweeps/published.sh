#!/usr/bin/env bash
# Prints the runs that are drawn over the published code's curves, one command a line: learning rate 0.002, and as many
# iterations as the published curves of seed 1 have.
#
#     bash bitseq/sweeps/published.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS, OBJECTIVES (tb db), APPROACHES (uniform tlm), OUTPUT_DIR. Collect with --varying
# num_iterations. Metrics stand at every 25 iterations, so that a mean log reward is that of the same window.
set -euo pipefail
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3}; do
    for objective in ${OBJECTIVES:-tb db}; do
        for approach in ${APPROACHES:-uniform tlm}; do
            case $objective-$approach in
                tb-uniform) iterations=600 ;;
                tb-tlm) iterations=300 ;;
                db-uniform) iterations=975 ;;
                db-tlm) iterations=325 ;;
                *) echo "error: there is no published curve of $objective with $approach: take others" >&2; exit 2 ;;
            esac
            echo "python bitseq/run.py --seed $seed --objective $objective --backward_approach $approach" \
                "--learning_rate 0.002 --num_iterations $iterations --validate_every 25 --corr_every 0" \
                "--output_dir $folder --if_exists resume"
        done
    done
done
