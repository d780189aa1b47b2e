#!/usr/bin/env bash
# Prints the runs that are drawn over the published code's curves, one command a line: learning rate 0.002, and as many
# iterations as the published curves of seed 1 have.
#
#     bash bitseq/sweeps/published.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS (1 2 3), OBJECTIVES (tb db), APPROACHES (uniform tlm), OUTPUT_DIR (runs). Left out is what
# bitseq/results/published_ours.csv has, which is collected with --varying num_iterations: metrics stand at every 25
# iterations, so that a mean log reward is that of the same window.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "1 2 3"
choose OBJECTIVES "tb db" "tb|db"
choose APPROACHES "uniform tlm" "uniform|tlm"
choose_output_dir

for seed in $SEEDS; do
    for objective in $OBJECTIVES; do
        for approach in $APPROACHES; do
            case $objective-$approach in
                tb-uniform) iterations=600 ;;
                tb-tlm) iterations=300 ;;
                db-uniform) iterations=975 ;;
                db-tlm) iterations=325 ;;
            esac
            measured=$(measured $((16 * iterations)) "" "$root/bitseq/results/published_ours.csv")
            [[ $measured != *" n=120-k=8 $objective $approach 0.002 $seed "* ]] || continue
            echo "python bitseq/run.py --seed $seed --objective $objective --backward_approach $approach" \
                "--learning_rate 0.002 --num_iterations $iterations --validate_every 25 --corr_every 0" \
                "--output_dir $OUTPUT_DIR --if_exists resume"
        done
    done
done
