"""Tiny agents of every suite by the same words, and what their steps change."""

import copy
import importlib

import torch
from each import ALGOS, OBJECTIVES, each
from torch.nn import Parameter

from hypergrid.common.algorithm import train_step

FAR_FROM_UNIFORM = {  # options of each suite
    "hypergrid": {"zero_initialisation": False},
    "bitseq": {"uniform_initialisation": False},
    "mols": {"rand_pb_init": True},
}
UNIFORM = {suite: {name: not value} for suite, options in FAR_FROM_UNIFORM.items() for name, value in options.items()}
BACKWARD_RATE = {"hypergrid": "backward_learning_rate", "bitseq": "backward_learning_rate", "mols": "blr"}
BACKWARD = {"backward_head", "backward_trunk", "log_n"}  # groups of P_B
OWN_LOSS = {"mols": ("maxent", "tlm", "pessimistic")}  # elsewhere those of a learned P_B, which maxent's is not
OWN_LOSS |= dict.fromkeys(("hypergrid", "bitseq"), ("tlm", "pessimistic"))
AGENTS = [(suite, name) for suite in ("hypergrid", "bitseq") for name in OBJECTIVES]
AGENTS += [("mols", name) for name in ALGOS]
each_agent = each("suite, objective", AGENTS)
EITHER_ORDER = [agent for agent in AGENTS if agent[0] != "mols"]  # P_B is updated first, or P_F
each_agent_in_either_order = each("suite, objective", EITHER_ORDER)


def new_agent(suite: str, objective: str, approach: str, **options):
    """An agent of that suite's tests with a non-uniform P_B."""
    torch.manual_seed(11)  # of dropout
    module = importlib.import_module(f"{suite}_agents")
    return module.new_agent(objective, approach, **(FAR_FROM_UNIFORM[suite] | options))


def started(suite: str, objective: str, approach: str, **options) -> tuple:
    """An agent after two steps, whose targets move at every step, and a fresh batch."""
    copies = {"update_target_every": 1} if suite == "bitseq" and "dqn" in objective else {}
    agent = new_agent(suite, objective, approach, **(copies | options))
    take_steps(agent, 2)
    return agent, agent.sample()


def take_steps(agent, n_steps: int) -> None:
    """Steps whose dropout does not depend on what drew from torch's generator before."""
    torch.manual_seed(11)
    for _ in range(n_steps):
        train_step(agent)


def copies_of(agent) -> dict[str, list[tuple[Parameter, Parameter]]]:
    """(copy's, online) parameters of every copy that an agent has of its policies or of parts of them."""
    policies, found = agent.policies, {}
    if getattr(policies, "backward_target", None) is not None:
        found["backward_target"] = pairs(policies.backward_target, policies.backward)
    if hasattr(agent, "target"):
        found["target"] = pairs(agent.target.policies, policies)
    if isinstance(q_target := getattr(agent, "q_target", None), tuple):
        trunk, head = q_target
        found["q_target"] = pairs(trunk, policies.trunk) + pairs(head, policies.forward_head)
    elif q_target is not None:
        found["q_target"] = pairs(q_target, policies)
    if hasattr(agent, "average"):
        found["average"] = pairs(agent.average, policies)
    return found


def pairs(target, online) -> list[tuple[Parameter, Parameter]]:
    parameters = dict(online.named_parameters())
    return [(parameter, parameters[name]) for name, parameter in target.named_parameters()]


def groups_of(agent) -> dict[str, list[Parameter]]:
    """Every named group of parameters of an agent, and its copies by their names."""
    return agent.policies.groups() | {name: [one for one, _ in held] for name, held in copies_of(agent).items()}


def snapshot(agent) -> dict[str, list[torch.Tensor]]:
    return {name: [p.detach().clone() for p in group] for name, group in groups_of(agent).items()}


def moved(before: dict, after: dict) -> set[str]:
    """Names of the groups in which anything changed."""
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


def same(first, second) -> bool:
    """Whether all weights of two agents are the same bits, those of their copies included."""
    return moved(snapshot(first), snapshot(second)) == set()


def value_of(agent, loss, batch) -> torch.Tensor:
    """A loss on the batch, always with the same dropout; the replay stream and its priorities stay."""
    torch.manual_seed(5)
    state = agent.streams.replay.bit_generator.state
    replay = copy.deepcopy(getattr(agent, "_replay", None))
    value = loss(batch)
    agent.streams.replay.bit_generator.state = state
    if replay is not None:
        agent._replay = replay
    return value


def tilt(parameters: list[Parameter]) -> None:
    """Other weights, for instance of P_B's head."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator))
