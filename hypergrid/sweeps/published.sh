#!/usr/bin/env bash
# Prints our runs of the cells of results/published_curves.csv, as long as the published ones, one command a line.
#
#     bash hypergrid/sweeps/published.sh | python -m hypergrid.analysis.launch
#
# From the environment: SEEDS, OUTPUT_DIR. TB is on the grid of height 8, as there.
set -euo pipefail
config=hypergrid/experiments/config
folder=$(printf %q "${OUTPUT_DIR:-runs/published}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3 4}; do
    while read -r environment height objective approach trajectories; do
        echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
            "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective" \
            "--algo.backward_approach $approach --env.height $height --general.n_trajectories $trajectories" \
            "--general.output_dir $folder --general.if_exists resume"
    done <<< "\
hard 20 munchausen_dqn tlm 80000
standard 20 db naive 24000
standard 20 db tlm 35200
standard 20 db uniform 32000
standard 20 munchausen_dqn tlm 32000
standard 20 munchausen_dqn uniform 24000
standard 20 subtb naive 24000
standard 20 subtb uniform 24000
standard 8 tb tlm 24000
standard 8 tb uniform 24000"
done
