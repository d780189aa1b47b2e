"""The two optimisers of a run: which parameters each steps, at which learning rate."""

from ml_collections import ConfigDict
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from bitseq.common.algorithm import Learner, parameters_of
from bitseq.common.backward_loss import BackwardApproach
from bitseq.policies.model import Policies


def forward_learner(config: ConfigDict, approach: BackwardApproach, policies: Policies) -> Learner:
    """Adam of P_F's objective: the trunk and P_F's head, log F, log Z, and P_B where its gradient reaches that."""
    groups = policies.groups()
    names = ["trunk", "forward_head", "log_flow"]
    if approach.forward_gradient_reaches_backward:
        names.append("backward_head")
    parameters = [{"params": parameters_of(groups, names), "lr": config.learning_rate}]
    if "log_z" in groups:
        parameters.append({"params": groups["log_z"], "lr": config.log_z_learning_rate})
    return Learner(Adam(parameters, weight_decay=config.weight_decay, fused=True))


def backward_learner(config: ConfigDict, approach: BackwardApproach, policies: Policies) -> Learner:
    """Adam of P_B's own loss, with the learning rate's decay: P_B's head, and the trunk unless it is left alone."""
    names = ["backward_head"] if config.backward_head_only else ["trunk", "backward_head"]
    optimizer = Adam(
        parameters_of(policies.groups(), names),
        lr=config.backward_learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    return Learner(optimizer, ExponentialLR(optimizer, config.gamma if approach.decays_learning_rate else 1.0))
