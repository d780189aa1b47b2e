#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its stability techniques, one command a line.
#
#     bash mols/sweeps/appendix.sh | python -m mols.analysis.launch
#
# From the environment: SEEDS, ENVIRONMENTS, LEARNING_RATES, OBJECTIVES, SCALE, OUTPUT_DIR, as in seh_figure2.sh;
# TECHNIQUES: decay of P_B's learning rate (off: it halves in 1e9 steps), initialisation of P_B at uniform, and, when
# asked for, target: one EMA model is the target of P_B and also samples, so that without it both change, and no
# difference can be put down to the target. The runs with every technique are those of figure 2, in the same folders.
# Collect with --varying blrd target_decay rand_pb_init
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 20000 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
for technique in ${TECHNIQUES:=decay initialisation}; do
    [[ $technique =~ ^(decay|target|initialisation)$ ]] ||
        { echo "error: TECHNIQUES has '$technique': take decay, target, initialisation" >&2; exit 2; }
done
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-2 3 4 5}; do
    for environment in ${ENVIRONMENTS:-seh_frag qm9}; do
        case $environment in seh_frag) published=" --proxy original --test_set original" ;; *) published="" ;; esac
        for rate in ${LEARNING_RATES:-0.0005}; do
            for objective in ${OBJECTIVES:-dqn db tb subtb}; do
                for technique in none $TECHNIQUES; do
                    case $technique in
                        none) off="" ;;
                        decay) off=" --blrd 1000000000" ;;
                        target) off=" --target_decay 0" ;;
                        initialisation) off=" --rand_pb_init" ;;
                    esac
                    echo "python -m mols.tasks.$environment --threads 1 --seed $seed --algo $objective --backward_approach tlm$off" \
                        "--lr $rate$published --n $iterations --validate_every $every" \
                        "--output_dir $folder --if_exists resume"
                done
            done
        done
    done
done
