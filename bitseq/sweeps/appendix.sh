#!/usr/bin/env bash
# Prints the runs of the appendix: TLM, and TLM without one of its three stability techniques, one command a line.
#
#     bash bitseq/sweeps/appendix.sh | python -m bitseq.analysis.launch
#
# From the environment: SEEDS (2 3 4 5), LEARNING_RATES (0.001), OBJECTIVES, APPROACHES (tlm alone), TECHNIQUES, SCALE,
# OUTPUT_DIR, as in figure2.sh; the runs with every technique are those of figure 2, in the same folders. Techniques:
# decay of P_B's learning rate, the target copy of P_B, initialisation of P_B at uniform. With the DQN objectives one
# setting copies P_B and Q into their targets: there it stays. Left out is what bitseq/results/appendix.csv has, which is
# collected with --varying gamma target_decay uniform_initialisation
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "2 3 4 5"
choose_learning_rates "0.001"
choose OBJECTIVES "munchausen_dqn db tb subtb" "munchausen_dqn|db|tb|subtb|soft_dqn"
choose APPROACHES "tlm" "tlm"
choose TECHNIQUES "decay target initialisation" "decay|target|initialisation"
choose_scale
choose_output_dir

iterations=$(scaled 50000)
every=$(interval 100 "$iterations")
start=$((iterations > 50 ? 50 : iterations / 2))
fields="gamma target_decay uniform_initialisation"
measured=$(measured $((16 * iterations)) "$fields" "$root/bitseq/results/appendix.csv")

# run GAMMA TARGET_DECAY UNIFORM_INITIALISATION
run() {
    local own="--target_decay $2" options="--gamma $1" values="$1 $2 $3"
    case $objective in *dqn) own="--start_learning $start" values="$1 - $3" ;; esac
    [[ $measured != *" n=120-k=8 $objective tlm $rate $seed $values "* ]] || return 0
    [ "$3" = True ] || options+=" --no-uniform_initialisation"
    echo "python bitseq/run.py --seed $seed --objective $objective --backward_approach tlm --learning_rate $rate" \
        "$options --num_iterations $iterations $own --validate_every $every --output_dir $OUTPUT_DIR --if_exists resume"
}

for seed in $SEEDS; do
    for rate in $LEARNING_RATES; do
        for objective in $OBJECTIVES; do
            run 0.9999 0.9 True
            for technique in $TECHNIQUES; do
                case $technique-$objective in
                    decay-*) run 1 0.9 True ;;
                    target-*dqn) ;;
                    target-*) run 0.9999 0 True ;;
                    initialisation-*) run 0.9999 0.9 False ;;
                esac
            done
        done
    done
done
