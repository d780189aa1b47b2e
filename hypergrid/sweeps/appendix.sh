#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its three stability techniques, one command a line.
#
#     bash hypergrid/sweeps/appendix.sh | python -m hypergrid.analysis.launch
#
# From the environment: SEEDS (1 2 3), ENVIRONMENTS, OBJECTIVES, APPROACHES (tlm alone), TECHNIQUES, SCALE, OUTPUT_DIR,
# as in figure1.sh; the runs with every technique are those of figure 1, in the same folders. Techniques: decay of P_B's
# learning rate, the target copy of P_B, initialisation of P_B at uniform. With the DQN objectives one setting moves the
# targets of P_B and of Q: there it stays. Left out is what hypergrid/results/appendix.csv has, which is collected with
#     --varying algo.backward_learning_rate_decay algo.target_decay algo.zero_initialisation
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "1 2 3"
choose ENVIRONMENTS "standard hard" "standard|hard"
choose OBJECTIVES "munchausen_dqn db tb subtb" "munchausen_dqn|db|tb|subtb|soft_dqn"
choose APPROACHES "tlm" "tlm"
choose TECHNIQUES "decay target initialisation" "decay|target|initialisation"
choose_scale
choose_output_dir

iterations=$(scaled 62500)
every=$(interval 100 "$iterations")
trajectories=$((16 * iterations))
fields="algo.backward_learning_rate_decay algo.target_decay algo.zero_initialisation"
measured=$(measured "$trajectories" "$fields" "$root/hypergrid/results/appendix.csv")
config=hypergrid/experiments/config

# run DECAY TARGET_DECAY ZERO_INITIALISATION
run() {
    [[ $measured != *" $environment $objective tlm 0.001 $seed $* "* ]] || return 0
    echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
        "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective --algo.backward_approach tlm" \
        "--algo.backward_learning_rate_decay=$1 --algo.target_decay=$2 --algo.zero_initialisation=$3" \
        "--general.n_trajectories $trajectories --general.validation_interval $every" \
        "--general.output_dir $OUTPUT_DIR --general.if_exists resume"
}

for seed in $SEEDS; do
    for environment in $ENVIRONMENTS; do
        for objective in $OBJECTIVES; do
            run 0.999 0.75 True
            for technique in $TECHNIQUES; do
                case $technique-$objective in
                    decay-*) run 1 0.75 True ;;
                    target-*dqn) ;;
                    target-*) run 0.999 0 True ;;
                    initialisation-*) run 0.999 0.75 False ;;
                esac
            done
        done
    done
done
