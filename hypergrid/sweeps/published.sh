#!/usr/bin/env bash
# Prints our runs of the cells of results/published_curves.csv, as long as the published ones, one command a line.
#
#     bash hypergrid/sweeps/published.sh | xargs -P 2 -I{} sh -c '{}'
#     python -m hypergrid.analysis.collect runs/published --out hypergrid/results/published_ours.csv
#     python -m hypergrid.analysis.published
#
# From the environment: SEEDS (1 2 3 4), OUTPUT_DIR (runs/published). TB is on the grid of height 8, as there.
set -euo pipefail
OUTPUT_DIR=${OUTPUT_DIR:-runs/published}
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "1 2 3 4"
choose_output_dir

config=hypergrid/experiments/config
for seed in $SEEDS; do
    # environment, height, objective, approach, and the last number of trajectories of each cell
    awk -F, 'NR > 1 { last[$1 " " $3 " " $4 " " $5] = $7 } END { for (cell in last) print cell, last[cell] }' \
        "$root/hypergrid/results/published_curves.csv" | sort |
        while read -r environment height objective approach trajectories; do
            echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
                "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective" \
                "--algo.backward_approach $approach --env.height $height --general.n_trajectories $trajectories" \
                "--general.output_dir $OUTPUT_DIR --general.if_exists resume"
        done
done
