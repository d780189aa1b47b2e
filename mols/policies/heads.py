"""The heads of P_F and P_B, one set for each environment: what the logit of each action is read off.

A head has one hidden layer and reads the features of the graph, of a node, or of two nodes. Logits are computed where
they are legal, and stand in the order of the environment's actions.
"""

import torch
from torch import Tensor, nn

from mols.environments.atom_moves import Graphs
from mols.environments.atom_vocabulary import N_ATTRIBUTES
from mols.environments.atoms import AtomEnvironment
from mols.environments.base import Environment
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.policies.graph_transformer import Features, mlp


class FragmentHeads:
    """P_F: stop (of the graph), add any fragment to a node, set an end of an edge to a point (of the two nodes).

    P_B: remove a leaf (of the node), unset an end (of the two nodes).

    Args:
        environment: whose actions they are.
    """

    def __init__(self, environment: FragmentEnvironment) -> None:
        self.environment = environment

    def forward(self, width: int) -> nn.ModuleDict:
        """P_F's heads, on features of that width."""
        return nn.ModuleDict(
            {
                "stop": mlp(2 * width, width, 1, 1),
                "add": mlp(width, width, self.environment.n_fragments, 1),
                "set": mlp(2 * width, width, self.environment.n_points, 1),
            }
        )

    def backward(self, width: int) -> nn.ModuleDict:
        """P_B's heads."""
        return nn.ModuleDict({"remove": mlp(width, width, 1, 1), "unset": mlp(2 * width, width, 1, 1)})

    def forward_logits(self, head: nn.ModuleDict, states: Trees, features: Features) -> Tensor:
        """(M, A) logits of all forward actions, -inf where illegal."""
        mask = self.environment.forward_mask(states)
        stop = head["stop"](features.graph).masked_fill(~mask.stop.unsqueeze(1), -torch.inf)
        add = _of_nodes(head["add"], features, mask.add)
        row, here, there = torch.nonzero(mask.set.any(-1), as_tuple=True)
        ends = head["set"](torch.cat([features.node[row, here], features.node[row, there]], 1))
        ends = ends.masked_fill(~mask.set[row, here, there], -torch.inf)
        ends = _fill(mask.set.shape, (row, here, there), ends)
        return torch.cat([stop, add.flatten(1), ends.flatten(1)], 1)

    def backward_logits(self, head: nn.ModuleDict, legal: Tensor, features: Features) -> Tensor:
        """(M, B) logits of all backward actions, -inf where they are not ``legal``."""
        n_slots = self.environment.n_slots
        remove = _of_nodes(head["remove"], features, legal[:, :n_slots])
        ends = legal[:, n_slots:].unflatten(1, (n_slots, n_slots))
        row, here, there = torch.nonzero(ends, as_tuple=True)
        unset = head["unset"](torch.cat([features.node[row, here], features.node[row, there]], 1))
        unset = _fill((*ends.shape, 1), (row, here, there), unset)
        return torch.cat([remove.flatten(1), unset.flatten(1)], 1)


class AtomHeads:
    """P_F: stop (of the graph), add any element and set any value (of the node), join and type a bond (of the pair).

    P_B: remove a leaf and unset an attribute (of the node), open a ring and unset a type (of the pair). Pairs have no
    direction: they are read by the sum of their nodes.

    Args:
        environment: whose actions they are.
    """

    def __init__(self, environment: AtomEnvironment) -> None:
        self.environment = environment

    def forward(self, width: int) -> nn.ModuleDict:
        """P_F's heads, on features of that width."""
        environment = self.environment
        sizes = {"add": environment.n_elements, "set": environment.n_values, "edge": 1, "bond": environment.n_bonds - 1}
        heads = {name: mlp(width, width, size, 1) for name, size in sizes.items()}
        return nn.ModuleDict({"stop": mlp(2 * width, width, 1, 1)} | heads)

    def backward(self, width: int) -> nn.ModuleDict:
        """P_B's heads."""
        sizes = {"remove": 1, "unset": N_ATTRIBUTES, "open": 1, "untype": 1}
        return nn.ModuleDict({name: mlp(width, width, size, 1) for name, size in sizes.items()})

    def forward_logits(self, head: nn.ModuleDict, states: Graphs, features: Features) -> Tensor:
        """(M, A) logits of all forward actions, -inf where illegal."""
        mask = self.environment.forward_mask(states)
        parts = (
            head["stop"](features.graph).masked_fill(~mask.stop.unsqueeze(1), -torch.inf),
            _of_nodes(head["add"], features, mask.add),
            _of_nodes(head["set"], features, mask.set),
            self._of_pairs(head["edge"], features, mask.edge.unsqueeze(2)),
            self._of_pairs(head["bond"], features, mask.bond),
        )
        return torch.cat([part.flatten(1) for part in parts], 1)

    def backward_logits(self, head: nn.ModuleDict, legal: Tensor, features: Features) -> Tensor:
        """(M, B) logits of all backward actions, -inf where they are not ``legal``."""
        n_slots, n_pairs = self.environment.n_slots, self.environment.n_pairs
        leaf, attribute, ring, bond = legal.split([n_slots, n_slots * N_ATTRIBUTES, n_pairs, n_pairs], 1)
        parts = (
            _of_nodes(head["remove"], features, leaf),
            _of_nodes(head["unset"], features, attribute.unflatten(1, (n_slots, N_ATTRIBUTES))),
            self._of_pairs(head["open"], features, ring.unsqueeze(2)),
            self._of_pairs(head["untype"], features, bond.unsqueeze(2)),
        )
        return torch.cat([part.flatten(1) for part in parts], 1)

    def _of_pairs(self, head: nn.Module, features: Features, legal: Tensor) -> Tensor:
        """(M, P, K) outputs for (M, P, K) legal actions of pairs."""
        row, pair = torch.nonzero(legal.any(-1), as_tuple=True)
        left, right = self.environment.moves.pairs[:, pair]
        logits = head(features.node[row, left] + features.node[row, right])
        return _fill(legal.shape, (row, pair), logits.masked_fill(~legal[row, pair], -torch.inf))


HEADS = {FragmentEnvironment: FragmentHeads, AtomEnvironment: AtomHeads}


def heads_of(environment: Environment) -> FragmentHeads | AtomHeads:
    """The heads for an environment."""
    return HEADS[type(environment)](environment)


def _of_nodes(head: nn.Module, features: Features, legal: Tensor) -> Tensor:
    """(M, S, K) outputs for (M, S, K) legal actions of nodes; (M, S): all K or none."""
    legal = legal if legal.dim() == 3 else legal.unsqueeze(2)
    row, slot = torch.nonzero(legal.any(-1), as_tuple=True)
    logits = head(features.node[row, slot])
    logits = logits.masked_fill(~legal[row, slot], -torch.inf)
    return _fill((*legal.shape[:2], logits.shape[1]), (row, slot), logits)


def _fill(shape: tuple[int, ...], index: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """A tensor of -inf with values at an index."""
    return values.new_full(shape, -torch.inf).index_put(index, values)
