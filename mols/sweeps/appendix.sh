#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its stability techniques, one command a line.
#
#     bash mols/sweeps/appendix.sh | python -m mols.analysis.launch
#
# From the environment: SEEDS (2 3 4 5), ENVIRONMENTS (seh_frag qm9), LEARNING_RATES (0.0005), OBJECTIVES, APPROACHES
# (tlm alone), TECHNIQUES, SCALE, OUTPUT_DIR, as in seh_figure2.sh; the runs with every technique are those of figure 2,
# in the same folders. Techniques: decay of P_B's learning rate (off: it halves in 1e9 steps), initialisation of P_B at
# uniform, and, when asked for, target: one EMA model is the target of P_B and also samples, so that without it both
# change, and no difference can be put down to the target. Left out is what mols/results/appendix.csv has, which is
# collected with --varying blrd target_decay rand_pb_init
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "2 3 4 5"
choose ENVIRONMENTS "seh_frag qm9" "seh_frag|qm9"
choose_learning_rates "0.0005"
choose OBJECTIVES "dqn db tb subtb" "dqn|db|tb|subtb|soft_dqn"
choose APPROACHES "tlm" "tlm"
choose TECHNIQUES "decay initialisation" "decay|target|initialisation"
choose_scale
choose_output_dir

iterations=$(scaled 20000)
every=$(interval 100 "$iterations")
fields="blrd target_decay rand_pb_init"
measured=$(measured $((256 * iterations)) "$fields" "$root/mols/results/appendix.csv")
measured+=$(measured $((128 * iterations)) "$fields" "$root/mols/results/appendix.csv")

# run BLRD TARGET_DECAY RAND_PB_INIT
run() {
    local options="--blrd $1 --target_decay $2"
    [[ $measured != *" $environment $objective tlm $rate $seed $* "* ]] || return 0
    [ "$environment" = qm9 ] || options+=" --proxy original --test_set original"
    [ "$3" = False ] || options+=" --rand_pb_init"
    echo "python -m mols.tasks.$environment --seed $seed --algo $objective --backward_approach tlm --lr $rate" \
        "$options --n $iterations --validate_every $every --output_dir $OUTPUT_DIR --if_exists resume"
}

for seed in $SEEDS; do
    for environment in $ENVIRONMENTS; do
        for rate in $LEARNING_RATES; do
            for objective in $OBJECTIVES; do
                run 20000 0.95 False
                for technique in $TECHNIQUES; do
                    case $technique in
                        decay) run 1000000000 0.95 False ;;
                        target) run 20000 0 False ;;
                        initialisation) run 20000 0.95 True ;;
                    esac
                done
            done
        done
    done
done
