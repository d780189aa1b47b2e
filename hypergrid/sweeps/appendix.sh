#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its three stability techniques, one command a line.
#
#     bash hypergrid/sweeps/appendix.sh | python -m hypergrid.analysis.launch
#
# From the environment: SEEDS, ENVIRONMENTS, OBJECTIVES, SCALE, OUTPUT_DIR, as in figure1.sh; TECHNIQUES: decay of P_B's
# learning rate, the target copy of P_B, initialisation of P_B at uniform. With the DQN objectives one setting moves the
# targets of P_B and of Q: there it stays. The runs with every technique are those of figure 1, in the same folders.
# Collect with --varying algo.backward_learning_rate_decay algo.target_decay algo.zero_initialisation
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 62500 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
config=hypergrid/experiments/config
for technique in ${TECHNIQUES:=decay target initialisation}; do
    [[ $technique =~ ^(decay|target|initialisation)$ ]] ||
        { echo "error: TECHNIQUES has '$technique': take decay, target, initialisation" >&2; exit 2; }
done
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-1 2 3 4}; do
    for environment in ${ENVIRONMENTS:-standard hard}; do
        for objective in ${OBJECTIVES:-munchausen_dqn db tb subtb}; do
            for technique in none $TECHNIQUES; do
                case $technique-$objective in
                    none-*) off="" ;;
                    decay-*) off=" --algo.backward_learning_rate_decay=1" ;;
                    target-*dqn) continue ;;
                    target-*) off=" --algo.target_decay=0" ;;
                    initialisation-*) off=" --algo.zero_initialisation=False" ;;
                esac
                echo "python hypergrid/run_hypergrid_exp.py --general $config/general.py:$seed" \
                    "--env $config/hypergrid.py:$environment --algo $config/algo.py:$objective" \
                    "--algo.backward_approach tlm$off --general.n_trajectories $((16 * iterations))" \
                    "--general.validation_interval $every" \
                    "--general.output_dir $folder --general.if_exists resume"
            done
        done
    done
done
