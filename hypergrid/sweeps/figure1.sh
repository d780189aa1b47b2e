#!/usr/bin/env bash
# Prints the runs of figure 1, one command a line, to be run at the repository's root; printing is the dry run.
#
#     bash hypergrid/sweeps/figure1.sh | python -m hypergrid.analysis.launch
#
# From the environment: SEEDS, ENVIRONMENTS, OBJECTIVES, APPROACHES; SCALE, the fraction of the paper's 1,000,000
# trajectories; OUTPUT_DIR. Every cell's first seed comes first. A shorter curve has 50 points, or one an iteration.
# No learning rate is chosen here (the paper's is fixed): every seed is for reporting.
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 62500 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
config=hypergrid/experiments/config
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3 4}; do
    for environment in ${ENVIRONMENTS:-standard hard}; do
        for objective in ${OBJECTIVES:-munchausen_dqn db tb subtb}; do
            for approach in ${APPROACHES:-uniform naive maxent tlm pessimistic}; do
                echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
                    "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective" \
                    "--algo.backward_approach $approach --general.n_trajectories $((16 * iterations))" \
                    "--general.validation_interval $every" \
                    "--general.output_dir $folder --general.if_exists resume"
            done
        done
    done
done
