"""The 72 fragments that molecules are made of, with the atoms at which they can be joined (Bengio et al. 2021)."""

from typing import NamedTuple


class Fragment(NamedTuple):
    """A building block.

    Attributes:
        smiles: its molecule, in the atom order of which the points speak.
        points: indices of its attachment atoms; each holds one single bond, in place of a hydrogen.
    """

    smiles: str
    points: tuple[int, ...]


FRAGMENTS = (
    Fragment("Br", (0,)),
    Fragment("C", (0,)),
    Fragment("C#N", (0,)),
    Fragment("C1=CCCCC1", (0, 2, 3)),
    Fragment("C1=CNC=CC1", (0, 2)),
    Fragment("C1CC1", (0,)),
    Fragment("C1CCCC1", (0,)),
    Fragment("C1CCCCC1", (0, 1, 2, 3, 4, 5)),
    Fragment("C1CCNC1", (0, 2, 3, 4)),
    Fragment("C1CCNCC1", (0, 1, 3)),
    Fragment("C1CCOC1", (0, 1, 2, 4)),
    Fragment("C1CCOCC1", (0, 1, 2, 4, 5)),
    Fragment("C1CNCCN1", (2, 5)),
    Fragment("C1COCCN1", (5,)),
    Fragment("C1COCC[NH2+]1", (5,)),
    Fragment("C=C", (0, 1)),
    Fragment("C=C(C)C", (0,)),
    Fragment("C=CC", (0, 1)),
    Fragment("C=N", (0,)),
    Fragment("C=O", (0,)),
    Fragment("CC", (0, 1)),
    Fragment("CC(C)C", (1,)),
    Fragment("CC(C)O", (1,)),
    Fragment("CC(N)=O", (2,)),
    Fragment("CC=O", (1,)),
    Fragment("CCC", (1,)),
    Fragment("CCO", (1,)),
    Fragment("CN", (0, 1)),
    Fragment("CNC", (1,)),
    Fragment("CNC(C)=O", (0,)),
    Fragment("CNC=O", (0, 2)),
    Fragment("CO", (0, 1)),
    Fragment("CS", (0,)),
    Fragment("C[NH3+]", (0,)),
    Fragment("C[SH2+]", (1,)),
    Fragment("Cl", (0,)),
    Fragment("F", (0,)),
    Fragment("FC(F)F", (1,)),
    Fragment("I", (0,)),
    Fragment("N", (0,)),
    Fragment("N=CN", (1,)),
    Fragment("NC=O", (0, 1)),
    Fragment("N[SH](=O)=O", (1,)),
    Fragment("O", (0,)),
    Fragment("O=CNO", (1,)),
    Fragment("O=CO", (1,)),
    Fragment("O=C[O-]", (1,)),
    Fragment("O=PO", (1,)),
    Fragment("O=P[O-]", (1,)),
    Fragment("O=S=O", (1,)),
    Fragment("O=[NH+][O-]", (1,)),
    Fragment("O=[PH](O)O", (1,)),
    Fragment("O=[PH]([O-])O", (1,)),
    Fragment("O=[SH](=O)O", (1,)),
    Fragment("O=[SH](=O)[O-]", (1,)),
    Fragment("O=c1[nH]cnc2[nH]cnc12", (3, 6)),
    Fragment("O=c1[nH]cnc2c1NCCN2", (8, 3)),
    Fragment("O=c1cc[nH]c(=O)[nH]1", (2, 4)),
    Fragment("O=c1nc2[nH]c3ccccc3nc-2c(=O)[nH]1", (8, 4, 7)),
    Fragment("O=c1nccc[nH]1", (3, 6)),
    Fragment("S", (0,)),
    Fragment("c1cc[nH+]cc1", (1, 3)),
    Fragment("c1cc[nH]c1", (0, 2)),
    Fragment("c1ccc2[nH]ccc2c1", (6,)),
    Fragment("c1ccc2ccccc2c1", (0, 2)),
    Fragment("c1ccccc1", (0, 1, 2, 3, 4, 5)),
    Fragment("c1ccncc1", (0, 1, 2, 4, 5)),
    Fragment("c1ccsc1", (2, 4)),
    Fragment("c1cn[nH]c1", (0, 1, 3, 4)),
    Fragment("c1cncnc1", (0, 1, 3, 5)),
    Fragment("c1cscn1", (0, 3)),
    Fragment("c1ncc2nc[nH]c2n1", (2, 6)),
)
