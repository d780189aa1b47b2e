"""The built-in example of an own reward, ``--reward qed``: drug-likeness (Bickerton et al. 2012), between 0 and 1."""

from rdkit import Chem
from rdkit.Chem import QED


def qed(smiles: list[str]) -> list[float]:
    """RDKit's QED of molecules."""
    return [QED.qed(Chem.MolFromSmiles(text)) for text in smiles]
