#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its three stability techniques, one command a line.
#
#     bash bitseq/sweeps/appendix.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS, LEARNING_RATES, OBJECTIVES, SCALE, OUTPUT_DIR, as in figure2.sh; TECHNIQUES: decay of
# P_B's learning rate, the target copy of P_B (and with it the copy that the correlation scores), initialisation of P_B
# at uniform. With the DQN objectives one setting copies P_B and Q into their targets: there it stays. The runs with
# every technique are those of figure 2, in the same folders. Collect with --varying gamma target_decay
# uniform_initialisation
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 50000 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
start=$((iterations > 50 ? 50 : iterations / 2))
for technique in ${TECHNIQUES:=decay target initialisation}; do
    [[ $technique =~ ^(decay|target|initialisation)$ ]] ||
        { echo "error: TECHNIQUES has '$technique': take decay, target, initialisation" >&2; exit 2; }
done
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-2 3 4 5}; do
    for rate in ${LEARNING_RATES:-0.001}; do
        for objective in ${OBJECTIVES:-munchausen_dqn db tb subtb}; do
            for technique in none $TECHNIQUES; do
                case $technique-$objective in
                    none-*) off="" ;;
                    decay-*) off=" --gamma 1" ;;
                    target-*dqn) continue ;;
                    target-*) off=" --target_decay 0" ;;
                    initialisation-*) off=" --no-uniform_initialisation" ;;
                esac
                case $objective in *dqn) replay=" --start_learning $start" ;; *) replay="" ;; esac
                echo "python bitseq/run.py --seed $seed --objective $objective --backward_approach tlm$off" \
                    "--learning_rate $rate --num_iterations $iterations$replay --validate_every $every" \
                    "--output_dir $folder --if_exists resume"
            done
        done
    done
done
