"""Graphs of atoms by plain Python, beside the tensors of mols/environments/atoms.py: moves and all states."""

from itertools import combinations
from typing import NamedTuple

from mols.environments.atoms import AtomEnvironment, Graphs

CAPACITY = {"C": 4, "N": 3, "O": 2, "F": 1}
CHARGE, CHIRALITY, HYDROGENS, NO_IMPLICIT = range(4)


class Atom(NamedTuple):
    """An atom: its symbol and the values of its attributes."""

    symbol: str
    values: tuple = (0, 0, 0, False)


class Graph(NamedTuple):
    """One state: (slot, atom) of every atom, ((lower slot, higher slot), order) of every bond, both sorted."""

    environment: AtomEnvironment
    atoms: tuple = ()
    bonds: tuple = ()

    def key(self) -> tuple:
        return self.atoms, self.bonds

    def with_atom(self, slot: int, atom: Atom | None) -> "Graph":
        atoms = dict(self.atoms) | {slot: atom}
        return self._replace(atoms=tuple(sorted((i, a) for i, a in atoms.items() if a is not None)))

    def with_bond(self, i: int, j: int, order: int) -> "Graph":
        bonds = dict(self.bonds) | {(min(i, j), max(i, j)): order}
        return self._replace(bonds=tuple(sorted((pair, o) for pair, o in bonds.items() if o)))

    def orders(self, i: int) -> dict[int, int]:
        """Neighbour -> order of the bond to it."""
        return {sum(pair) - i: order for pair, order in self.bonds if i in pair}

    def valence(self, i: int) -> int:
        return sum(self.orders(i).values()) + dict(self.atoms)[i].values[HYDROGENS]

    def is_valid(self) -> bool:
        """Whether every atom has room for what it has."""
        atoms, charges = dict(self.atoms), self.environment.vocabulary.charges
        for i, (symbol, (charge, chirality, *_)) in self.atoms:
            capacity, orders = CAPACITY[symbol] - abs(charge), self.orders(i)
            if symbol == "N" and charge == 1:
                capacity = 4
            if symbol == "N" and charge == 0 and 1 in charges:
                capacity = 5 if any(o == 2 and atoms[j].symbol == "O" for j, o in orders.items()) else 4
            if self.valence(i) > capacity or (chirality and (len(orders) < 3 or max(orders.values()) > 1)):
                return False
        return True

    def is_connected(self) -> bool:
        slots = [i for i, _ in self.atoms]
        seen = slots[:1]
        for i in seen:  # grows meanwhile
            seen += [j for j in self.orders(i) if j not in seen]
        return len(seen) == len(slots)

    def holds_fast(self, *slots: int) -> bool:
        """Whether an atom is chiral."""
        return any(dict(self.atoms)[i].values[CHIRALITY] for i in slots)

    def is_finished(self) -> bool:
        charged = 1 in self.environment.vocabulary.charges
        pending = [
            charged and atom.symbol == "N" and atom.values[CHARGE] == 0 and self.valence(i) == 4
            for i, atom in self.atoms
        ]
        return bool(self.atoms) and not any(pending)

    def forward_moves(self) -> dict[int, "Graph"]:
        """Number -> state after, of every legal action; stop leads to the state itself."""
        environment, vocabulary = self.environment, self.environment.vocabulary
        n_slots, columns = environment.n_slots, columns_of(environment)
        atoms, bonds, pairs = dict(self.atoms), dict(self.bonds), list(combinations(range(n_slots), 2))
        found = {0: self} if self.is_finished() else {}
        new = next((slot for slot in range(n_slots) if slot not in atoms), None)
        for i in list(atoms) or [0]:
            for k, symbol in enumerate(vocabulary.elements):
                if new is not None and not (atoms and self.holds_fast(i)):
                    after = self.with_atom(new, Atom(symbol))
                    found[1 + i * len(vocabulary.elements) + k] = after.with_bond(i, new, 1) if atoms else after
        first_set = 1 + n_slots * len(vocabulary.elements)
        for i, atom in atoms.items():
            for v, (a, value) in enumerate(columns):
                if atom.values[a] == 0:
                    values = (*atom.values[:a], value, *atom.values[a + 1 :])
                    found[first_set + i * len(columns) + v] = self.with_atom(i, atom._replace(values=values))
        first_edge = first_set + n_slots * len(columns)
        types = vocabulary.bonds[1:]
        for p, (i, j) in enumerate(pairs):
            if i in atoms and j in atoms and not self.holds_fast(i, j):
                if (i, j) not in bonds:
                    found[first_edge + p] = self.with_bond(i, j, 1)
                elif bonds[i, j] == 1:
                    for t, order in enumerate(types):
                        found[first_edge + len(pairs) + p * len(types) + t] = self.with_bond(i, j, order)
        return {number: after for number, after in found.items() if after.is_valid()}

    def backward_moves(self) -> dict[int, "Graph"]:
        """Number -> state after, of every legal backward action."""
        n_slots, found = self.environment.n_slots, {}
        bonds, pairs = dict(self.bonds), list(combinations(range(n_slots), 2))
        for i, atom in self.atoms:
            orders = self.orders(i)
            is_plain = not any(atom.values) and set(orders.values()) <= {1}
            if is_plain and len(orders) < 2 and not self.holds_fast(*orders):
                after = self
                for j in orders:
                    after = after.with_bond(i, j, 0)
                found[i] = after.with_atom(i, None)
            for a, value in enumerate(atom.values):
                if value:
                    values = (*atom.values[:a], 0, *atom.values[a + 1 :])
                    found[n_slots + 4 * i + a] = self.with_atom(i, atom._replace(values=values))
        for p, (i, j) in enumerate(pairs):
            order = bonds.get((i, j), 0)
            if order == 1 and not self.holds_fast(i, j) and self.with_bond(i, j, 0).is_connected():
                found[5 * n_slots + p] = self.with_bond(i, j, 0)
            if order > 1:
                found[5 * n_slots + len(pairs) + p] = self.with_bond(i, j, 1)
        return found

    def renamed(self, old: int, new: int) -> "Graph":
        """The state with one atom in another slot."""
        name = {i: new if i == old else i for i, _ in self.atoms}
        graph = self._replace(atoms=tuple(sorted((name[i], atom) for i, atom in self.atoms)), bonds=())
        for (i, j), order in self.bonds:
            graph = graph.with_bond(name[i], name[j], order)
        return graph


def columns_of(environment: AtomEnvironment) -> list[tuple[int, object]]:
    """(attribute, value) of each column."""
    return [(a, value) for a, values in enumerate(environment.vocabulary.attributes) for value in values[1:]]


def reachable(environment: AtomEnvironment, *, backwards: bool) -> list[Graph]:
    """Every state that can be reached from s_0; with backward moves in between, those with holes too."""
    queue = [Graph(environment)]
    seen = {queue[0].key()}
    for graph in queue:  # grows meanwhile
        moves = [*graph.forward_moves().values(), *(graph.backward_moves().values() if backwards else ())]
        for after in moves:
            if after.key() not in seen:
                seen.add(after.key())
                queue.append(after)
    return queue


def to_tensors(graphs: list[Graph]) -> Graphs:
    """The states as tensors, entry by entry."""
    environment = graphs[0].environment
    vocabulary, states = environment.vocabulary, environment.initial_states(len(graphs))
    for row, graph in enumerate(graphs):
        for i, atom in graph.atoms:
            states.element[row, i] = vocabulary.elements.index(atom.symbol)
            for a, value in enumerate(atom.values):
                states.attribute[row, i, a] = vocabulary.attributes[a].index(value)
        for (i, j), order in graph.bonds:
            states.bond[row, i, j] = states.bond[row, j, i] = 1 + vocabulary.bonds.index(order)
    return states
