"""Between graphs and RDKit's molecules; test sets and QM9's own."""
