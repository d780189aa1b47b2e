"""What a molecule is worth: published network, surrogate, HOMO-LUMO gap, or a function of the user's."""
