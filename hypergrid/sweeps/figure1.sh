#!/usr/bin/env bash
# Prints the runs of figure 1, one command a line, relative to the repository's root; printing is the dry run.
#
#     bash hypergrid/sweeps/figure1.sh | python -m hypergrid.analysis.launch
#
# From the environment: SEEDS (1 2 3), ENVIRONMENTS, OBJECTIVES, APPROACHES; SCALE, the fraction of the paper's
# 1,000,000 trajectories (1); OUTPUT_DIR (runs). A run that hypergrid/results/figure1.csv has, of this length and of
# today's results version, is left out. Every cell's first seed comes first. At SCALE=0.1 a curve has 62 points, and never
# fewer than 50 or one an iteration. No learning rate is chosen here (the paper's is fixed): every seed is for reporting.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "1 2 3"
choose ENVIRONMENTS "standard hard" "standard|hard"
choose OBJECTIVES "munchausen_dqn db tb subtb" "munchausen_dqn|db|tb|subtb|soft_dqn"
choose_approaches "uniform naive maxent tlm pessimistic"
choose_scale
choose_output_dir

iterations=$(scaled 62500)
every=$(interval 100 "$iterations")
trajectories=$((16 * iterations))
measured=$(measured "$trajectories" "" "$root/hypergrid/results/figure1.csv")
config=hypergrid/experiments/config
for seed in $SEEDS; do
    for environment in $ENVIRONMENTS; do
        for objective in $OBJECTIVES; do
            for approach in $APPROACHES; do
                [[ $measured != *" $environment $objective $approach 0.001 $seed "* ]] || continue
                echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
                    "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective" \
                    "--algo.backward_approach $approach --general.n_trajectories $trajectories" \
                    "--general.validation_interval $every" \
                    "--general.output_dir $OUTPUT_DIR --general.if_exists resume"
            done
        done
    done
done
